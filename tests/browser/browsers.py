"""Finds the browser that the browser tests drive. ``scripts/system_packages.py`` installs one; tests never do.

``EBUS_BROWSER`` chooses ``chromium`` (the default) or ``firefox``; ``EBUS_BROWSER_PATH`` names a program to use.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Playwright, sync_playwright

CHROMIUM_NAMES = (
    "chromium-headless-shell",  # the same engine without a window's own pages: a page costs a quarter less CPU time
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
"""Programs on the path. Playwright drives any Chromium, but only its own build of Firefox."""

FLAGS = {
    "chromium": (
        "--no-sandbox",  # CI runs as root
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ),
    "firefox": (),
}


class NoBrowser(Exception):
    """The chosen browser is not installed; the message says how to install it."""


def chosen() -> str:
    """The browser's name: "chromium" or "firefox".

    Raises:
        NoBrowser: ``EBUS_BROWSER`` names another one.
    """
    name = os.environ.get("EBUS_BROWSER") or "chromium"
    if name not in FLAGS:
        raise NoBrowser(f"EBUS_BROWSER is {name!r}; the tests know {' and '.join(FLAGS)}")
    return name


def on_system() -> str | None:
    """The path of the chosen browser, of those that the system has."""
    named = os.environ.get("EBUS_BROWSER_PATH")
    if named:
        return named
    programs = CHROMIUM_NAMES if chosen() == "chromium" else ()
    return next((found for found in map(shutil.which, programs) if found), None)


def is_downloaded() -> bool:
    """Whether playwright has downloaded the chosen browser."""
    with sync_playwright() as playwright:
        return _is_downloaded(playwright)


def launch(playwright: Playwright) -> Browser:
    """Start the chosen browser.

    Raises:
        NoBrowser: It is not installed.
    """
    name, path = chosen(), on_system()
    if path is None and not _is_downloaded(playwright):
        raise NoBrowser(
            f"{name} is not installed. `python scripts/system_packages.py` installs it; EBUS_BROWSER_PATH names one."
        )
    started: Browser = getattr(playwright, name).launch(executable_path=path, args=list(FLAGS[name]))
    return started


def _is_downloaded(playwright: Playwright) -> bool:
    return Path(getattr(playwright, chosen()).executable_path).exists()
