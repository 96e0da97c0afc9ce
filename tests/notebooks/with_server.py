"""A pytest plugin that gives the notebooks' kernels a real server.

nbval starts kernels itself, with pytest's environment and without a server. This plugin starts a server before collection
and names it in the environment, as a server does for its own kernels.

    python -m pytest -p tests.notebooks.with_server --nbval notebooks
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.server.harness import Server

_running: list[Server] = []


def pytest_sessionstart(session: pytest.Session) -> None:
    folder = tempfile.mkdtemp(prefix="ebus-notebooks-")
    server = Server(Path(folder), users=("alice",)).start()
    _running.append(server)
    os.environ["EBUS_URL"], os.environ["EBUS_TOKEN"] = server.url, server.token("alice")


def pytest_report_header() -> str:
    return f"notebooks connect to {os.environ.get('EBUS_URL', 'no server')}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    while _running:
        _running.pop().stop()
