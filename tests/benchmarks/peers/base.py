"""What a benchmark asks of each peer."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.benchmarks.wire import Line

ROOT = Path(__file__).parents[3]


class Unavailable(Exception):
    """The peer can't be had here; the message says what is missing."""


class Running(NamedTuple):
    """A server that runs: its process, and where it listens on this machine."""

    pid: int
    port: int


class FanOut(Protocol):
    """Spreads what one writer says to all who listen."""

    name: str

    def serve(self) -> AbstractContextManager[Running]:
        """Run the server, in a process of its own. Raises `Unavailable`."""

    async def listen(self, line: Line) -> None:
        """Make ``line`` a subscriber; returns once the server has taken it in."""

    async def enter(self, line: Line) -> None:
        """Make ``line`` the writer."""

    def pack(self, texts: list[str]) -> bytes:
        """The bytes with which the writer writes these, each a message of its own, at once."""


@contextlib.contextmanager
def python(module: str, *args: str) -> Iterator[Running]:
    """Run ``module`` as a server that prints its port when it is ready."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-m", module, *args], cwd=ROOT, env=env, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            if not said.isdigit():
                raise Unavailable(f"{module} did not start")
            yield Running(process.pid, int(said))
        finally:
            process.kill()
