"""Finds the Chromium that the browser tests drive, and installs one where there is none.

    python -m tests.browser.chromium      prints its path

The system's own is taken if there is one; else Debian's package, where we may install it; else playwright's download.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Chromium runs as root in CI, and calls nobody."""


class NoChromium(Exception):
    """There is no Chromium, and none can be had; the message says what was tried."""


def installed() -> str | None:
    """The path of a Chromium that is on this machine."""
    named = os.environ.get("EBUS_CHROMIUM")
    if named:
        return named
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def find() -> str:
    """The path of a Chromium, installed now if need be.

    Raises:
        NoChromium: None could be had. Tests fail on this; they don't skip.
    """
    found = installed()
    if found is not None:
        return found
    tried = []
    if shutil.which("apt-get") and os.geteuid() == 0:
        for command in (
            ["apt-get", "update", "-q"],
            ["apt-get", "install", "-y", "-q", "chromium", "fonts-liberation"],
        ):
            tried.append(" ".join(command))
            subprocess.run(
                command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, stdout=sys.stderr, check=False
            )
    else:
        tried.append("playwright install chromium")
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], stdout=sys.stderr, check=False)
    found = installed()
    if found is None:
        raise NoChromium(
            f"no Chromium on this machine, and none came of: {'; '.join(tried)}. Install one, or set EBUS_CHROMIUM."
        )
    return found


if __name__ == "__main__":
    print(find())
