"""Redis publish and subscribe, over the raw protocol. No log, no types; slow clients are disconnected."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.wire import RawClient

from . import base

START_SECONDS = 10.0
CHANNEL = b"notes"


class Redis:
    name = "Redis publish"

    @contextlib.contextmanager
    def serve(self) -> Iterator[base.Running]:
        """A server without persistence. Raises `base.Unavailable`."""
        program = shutil.which("redis-server")
        if program is None:
            raise base.Unavailable("redis-server is not installed; install it with the system's package manager")
        port = base.free_port()
        with tempfile.TemporaryDirectory(prefix="ebus-bench-", ignore_cleanup_errors=True) as folder:
            log = Path(folder) / "log"
            options = [
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
                folder,
                "--logfile",
                str(log),
            ]
            with subprocess.Popen([program, *options]) as process:
                try:
                    deadline = time.monotonic() + START_SECONDS
                    while not log.exists() or "eady to accept" not in log.read_text():
                        if time.monotonic() > deadline or process.poll() is not None:
                            raise base.Unavailable("redis-server did not start")
                        time.sleep(0.02)
                    yield base.Running(process.pid, port)
                finally:
                    process.kill()

    async def subscribe(self, client: RawClient) -> None:
        client.send(_command(b"SUBSCRIBE", CHANNEL))
        await client.read_until(b":1\r\n")

    async def join(self, client: RawClient) -> None:
        client.send(_command(b"PING"))
        await client.read_until(b"+PONG\r\n")

    def pack(self, texts: list[str]) -> bytes:
        return b"".join([_command(b"PUBLISH", CHANNEL, text.encode()) for text in texts])


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%s\r\n" % (len(word), word) for word in words])
