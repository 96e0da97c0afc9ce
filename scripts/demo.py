"""JupyterLab on the first example notebook, for two people."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = "01_shared_slider.ipynb"


def free_port(wanted: int) -> int:
    """``wanted``, or the next port that is free."""
    for port in range(wanted, wanted + 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise SystemExit(f"no free port from {wanted} on; choose one with PORT=")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--token", default="")
    asked = parser.parse_args()

    # A copy, so that running the notebooks leaves the checkout as it was.
    folder = ROOT / ".demo"
    folder.mkdir(exist_ok=True)
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        if not (folder / notebook.name).exists():
            shutil.copy(notebook, folder)

    token, port = asked.token or secrets.token_hex(16), free_port(asked.port)
    link = f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK}?token={token}"
    has_display = sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    print(
        f"""
  Open this link{" (it opens by itself)" if has_display else ""}:

      {link}

  and run all cells (Run > Run All Cells).

  A second person: open the same link in another browser, or in a private window,
  choose File > Duplicate Notebook so that each of you has a kernel, and run all cells there too.
  Drag the slider: it moves in the other browser. Stop with Ctrl-C; start again, and the value is still there.
""",
        flush=True,
    )
    command = [
        sys.executable, "-m", "jupyterlab",
        f"--ServerApp.root_dir={folder}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        f"--LabApp.default_url=/lab/tree/{NOTEBOOK}",
        "--ServerApp.log_level=WARN",
        "--ServerApp.answer_yes=True",
    ]  # fmt: skip
    if not has_display:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    lab = subprocess.Popen(command)
    try:
        return lab.wait()
    except KeyboardInterrupt:  # JupyterLab has heard it too
        try:
            lab.wait(timeout=10)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            lab.kill()  # its idle worker threads can keep it when its pages are still open
        return 0


if __name__ == "__main__":
    sys.exit(main())
