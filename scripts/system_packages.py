"""Installs what the tests need besides Python and npm packages: a browser, openssl, and a library of playwright's.

    python scripts/system_packages.py

On Debian, as root, they are the system's packages; another installer's lock is waited for. Elsewhere the browser is
playwright's download, and what remains is reported. Nothing is installed that is there already.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.browser import browsers

APT_SECONDS = 900
"""The time that another installer may hold apt's locks."""

PACKAGES = {
    "playwright": ("libatomic1",),
    "chromium": ("chromium-headless-shell", "fonts-liberation"),
    "openssl": ("openssl",),
}
"""Debian's packages for each tool. Playwright's driver links libatomic; without a font, Chromium draws no text."""


def has_apt() -> bool:
    """True if Debian's packages may be installed. Ubuntu's ``chromium`` is a snap, which does not run in containers."""
    try:
        system = Path("/etc/os-release").read_text()
    except OSError:
        return False
    return "ID=debian" in system.splitlines() and os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_install(*packages: str) -> bool:
    """Install packages with apt; whether it succeeded. What apt printed is shown only if it failed."""
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    deadline = time.monotonic() + APT_SECONDS
    waiting = False
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        command = ["apt-get", "--quiet", "--option", f"DPkg::Lock::Timeout={APT_SECONDS}", *arguments]
        while True:
            ran = subprocess.run(command, env=environ, text=True, capture_output=True, check=False)
            if ran.returncode == 0:
                break
            # apt waits for dpkg's lock only, not for those of its lists and archives. 11 is EAGAIN: another one has it.
            if "/lock" not in ran.stderr or f"({errno.EAGAIN}:" not in ran.stderr or time.monotonic() > deadline:
                print(ran.stdout + ran.stderr, file=sys.stderr, flush=True)
                return False
            if not waiting:
                waiting = True
                print("Waiting until another installer has finished …", flush=True)
            time.sleep(2)
    return True


def missing() -> list[str]:
    """The tools that the tests need and do not find."""
    driver = subprocess.run([sys.executable, "-m", "playwright", "--version"], capture_output=True, check=False)
    found = {
        "playwright": driver.returncode == 0,
        browsers.chosen(): browsers.on_system() is not None or (driver.returncode == 0 and browsers.is_downloaded()),
        "openssl": shutil.which("openssl") is not None,
    }
    return [tool for tool, there in found.items() if not there]


def main() -> int:
    tools = missing()
    if not tools:
        return 0
    packages = [package for tool in tools for package in PACKAGES.get(tool, ())]
    if packages and has_apt():
        print(f"Installing {', '.join(packages)} with apt-get …", flush=True)
        apt_install(*packages)
        tools = missing()
    if browsers.chosen() in tools:
        print(f"Downloading {browsers.chosen()} with playwright …", flush=True)
        subprocess.run([sys.executable, "-m", "playwright", "install", browsers.chosen()], check=False)
        tools = missing()
    advice = {
        "playwright": "The libraries of playwright's driver are missing: `playwright --version` names them.",
        "openssl": "The tests need openssl. Install it with the system's package manager.",
        browsers.chosen(): f"The tests need {browsers.chosen()}. Install it, or name one with EBUS_BROWSER_PATH.",
    }
    print(*(advice[tool] for tool in tools), sep="\n", file=sys.stderr, end="\n" if tools else "")
    return 1 if tools else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except browsers.NoBrowser as error:
        sys.exit(str(error))
