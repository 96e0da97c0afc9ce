"""Redis publish and subscribe, spoken to directly. No log, no types; who is too slow is cut off."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.wire import Line

from . import base

START_SECONDS = 10.0
CHANNEL = b"notes"


class Redis:
    name = "Redis publish"

    @contextlib.contextmanager
    def serve(self) -> Iterator[base.Running]:
        """A server without a file. Raises `base.Unavailable`."""
        program = shutil.which("redis-server")
        if program is None:
            raise base.Unavailable("no redis-server; the system's package has it")
        port = base.free_port()
        with tempfile.TemporaryDirectory(prefix="ebus-bench-", ignore_cleanup_errors=True) as folder:
            said = Path(folder) / "log"
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
                str(said),
            ]
            with subprocess.Popen([program, *options]) as process:
                try:
                    deadline = time.monotonic() + START_SECONDS
                    while not said.exists() or "eady to accept" not in said.read_text():
                        if time.monotonic() > deadline or process.poll() is not None:
                            raise base.Unavailable("redis-server did not start")
                        time.sleep(0.02)
                    yield base.Running(process.pid, port)
                finally:
                    process.kill()

    async def listen(self, line: Line) -> None:
        line.send(_command(b"SUBSCRIBE", CHANNEL))
        await line.until(b":1\r\n")

    async def enter(self, line: Line) -> None:
        line.send(_command(b"PING"))
        await line.until(b"+PONG\r\n")

    def pack(self, texts: list[str]) -> bytes:
        return b"".join([_command(b"PUBLISH", CHANNEL, text.encode()) for text in texts])


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%s\r\n" % (len(word), word) for word in words])
