"""Those who run a `participant.Participant` where the injector can get at it: a process of its own, and a kernel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import psutil

from tests.server.harness import Kernel

from .proxy import Line
from .server import ROOT, FaultyServer

ANSWER_SECONDS = 200.0
RESTART_SECONDS = 120.0


class Actor(Protocol):
    """A participant whom faults happen to."""

    name: str
    user: str
    line: Line

    def wait_ready(self) -> None:
        """Wait until it has begun."""

    def command(self, what: str) -> str:
        """Have it do something, and return what it says then; see `participant`."""

    def signal(self, number: int) -> None:
        """Send its process a signal."""

    def replace(self, spec: dict[str, Any]) -> None:
        """Kill its process, and be another participant, on the same line."""

    def close(self) -> None:
        """End it."""


class Process:
    """A participant in a process of its own."""

    def __init__(self, spec: dict[str, Any], line: Line) -> None:
        self.line = line
        self._begin(spec)

    def _begin(self, spec: dict[str, Any]) -> None:
        self.name: str = spec["name"]
        self.user: str = spec["user"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.participant", json.dumps(spec)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", f"{self.name} did not start"

    def command(self, what: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline().strip()
        assert said, f"{self.name} has ended"
        return said

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def replace(self, spec: dict[str, Any]) -> None:
        self.close()
        self._begin(spec)
        self.wait_ready()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


BEGIN = """
import os
os.environ["EBUS_URL"] = {url!r}
from tests.faults.participant import Participant
participant = Participant({spec!r}).start()
os.getpid()
"""


class KernelActor:
    """A participant in a kernel of the server, with the kernel's own token."""

    def __init__(self, server: FaultyServer, spec: Callable[[str], dict[str, Any]], user: str, line: Line) -> None:
        self.line = line
        self.user = user
        self.kernel: Kernel = server.start_kernel(user)
        self._begin(spec(self.kernel.id))

    def _begin(self, spec: dict[str, Any]) -> None:
        self.name: str = spec["name"]
        result = self.kernel.run(BEGIN.format(url=self.line.url, spec=spec), ANSWER_SECONDS)
        assert result.value is not None
        self.pid = int(result.value)

    def wait_ready(self) -> None:
        pass

    def command(self, what: str) -> str:
        result = self.kernel.run(f"print(participant.{what}())", ANSWER_SECONDS)
        return result.stdout.strip()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def replace(self, spec: dict[str, Any]) -> None:
        """Kill the kernel; the server starts it again by itself."""
        os.kill(self.pid, signal.SIGKILL)
        self.kernel.close()
        until = time.monotonic() + RESTART_SECONDS
        # Jupyter never answers one who connects to a kernel that has died and was not missed yet.
        while not self._is_new_process_there():
            assert time.monotonic() < until, "the server has not started the kernel again"
            time.sleep(0.1)
        self._begin(spec)

    def _is_new_process_there(self) -> bool:
        return any(
            process.pid != self.pid and any(self.kernel.id in part for part in process.info["cmdline"] or ())
            for process in psutil.process_iter(["cmdline"])
        )

    def restart(self, spec: dict[str, Any]) -> None:
        self.kernel.restart()
        self._begin(spec)

    def interrupt_at_work(self, seconds: float) -> str:
        """Have it write from a cell, and interrupt the cell after a while."""
        cell = self.kernel.submit("print('at work'); print(participant.work())")
        cell.until_printed("at work")
        time.sleep(seconds)
        self.kernel.interrupt()
        return cell.result(ANSWER_SECONDS).stdout

    def close(self) -> None:
        self.kernel.close()
