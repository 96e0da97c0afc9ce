"""A pytest plugin: the notebooks' kernels meet a real server.

nbval starts its kernels itself, with pytest's environment and no server; so the server is started here, before anything
is collected, and named in the environment as it would be for a kernel of its own.

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
    return f"the notebooks' buses are at {os.environ.get('EBUS_URL', 'no server')}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    while _running:
        _running.pop().stop()
