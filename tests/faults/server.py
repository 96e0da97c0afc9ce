"""The server that faults happen to: a real Jupyter server, and what can be done to its process, its file and its clock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.server.harness import Server
from tests.server.harness.server import EXTENSIONS

ROOT = Path(__file__).parents[2]

CONFIG = """
c.EBus.database = {database!r}
c.EBus.ping_interval = 2.0
c.EBus.filters = {{"marks": "tests.faults.filters:marks"}}
# By TCP, the server chooses a kernel's ports before the kernel binds them, and another process may take one in between.
c.KernelManager.transport = "ipc"
c.KernelRestarter.time_to_dead = 0.3
c.KernelRestarter.restart_limit = 1_000_000
c.ServerApp.jpserver_extensions.update({disabled!r})
"""


class Forked:
    """A server's process: what `Server` uses of a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def end(self, status: int) -> None:
        self.returncode = status
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("jupyter server", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Starter:
    """The process that servers are forked from; see `jupyter_process`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.jupyter_process"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the starter of servers did not start"
        self._begun: list[Forked] = []
        self._has_begun = threading.Condition()
        self._by_pid: dict[int, Forked] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, folder: Path, env: dict[str, str], log: Path) -> Forked:
        assert self._process.stdin is not None
        with self._has_begun:
            self._process.stdin.write(json.dumps({"folder": str(folder), "env": env, "log": str(log)}) + "\n")
            self._process.stdin.flush()
            assert self._has_begun.wait_for(lambda: self._begun, 30), "no server was forked"
            return self._begun.pop()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            pid, status = json.loads(line)
            if status is None:
                with self._has_begun:
                    self._begun.append(self._by_pid.setdefault(pid, Forked(pid)))
                    self._has_begun.notify_all()
            else:
                self._by_pid.setdefault(pid, Forked(pid)).end(status)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


class FaultyServer(Server):
    """One Jupyter server, with a file and a clock that can be made to fail."""

    def __init__(self, folder: Path, starter: Starter) -> None:
        self.database = folder / "store" / "ebus.sqlite"
        self._clock = folder / "clock"
        self._starter = starter
        self._copies = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._clock.write_bytes(struct.pack("d", 0.0))
        disabled = dict.fromkeys(EXTENSIONS, False)
        super().__init__(
            folder,
            app="tests.faults.jupyter_process",
            config=CONFIG.format(database=str(self.database), disabled=disabled),
            env={"EBUS_FAULTS_CLOCK": str(self._clock), "PYTHONPATH": str(ROOT)},
        )

    def _launch(self) -> Any:
        return self._starter.start(self.folder, self._env(), self.log)

    # --- its process --------------------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def memory(self) -> int:
        """The bytes that its process holds."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def step_clock(self, seconds: float) -> None:
        """Put its wall clock ahead of the system's by ``seconds``."""
        with self._clock.open("r+b") as file:
            file.write(struct.pack("d", seconds))

    @contextlib.contextmanager
    def full_disk(self, room: int) -> Iterator[None]:
        """No file of its process can grow by more than ``room`` bytes over what the buses' log has now.

        It is the kernel's own limit for a process (RLIMIT_FSIZE): a write beyond it fails, whoever makes it. That takes no
        privilege and no mount, so it works on any machine, where a small file system does not.
        """
        log = self.database.with_name(self.database.name + "-wal")
        size = max(log.stat().st_size if log.exists() else 0, self.database.stat().st_size)
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size + room, hard))
        try:
            yield
        finally:
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (hard, hard))

    # --- its file; only while it is down ------------------------------------------------------------------------------

    def files(self) -> list[Path]:
        return sorted(path for path in self.database.parent.glob(self.database.name + "*") if "-lock" not in path.name)

    def copy(self) -> Path:
        """Copy the file, with the log beside it, as a backup does."""
        self._copies += 1
        target = self.folder / "copies" / str(self._copies)
        target.mkdir(parents=True)
        for path in self.files():
            shutil.copy2(path, target)
        return target

    def put_back(self, copy: Path) -> None:
        for path in self.files():
            path.unlink()
        for path in copy.iterdir():
            shutil.copy2(path, self.database.parent)

    def damage(self, how: str) -> None:
        """Damage the file as a bad disk does, at its "head" or its "end".

        A page that was changed within a value is not among them: SQLite has no checksums, and nobody would notice.
        """
        with contextlib.closing(sqlite3.connect(self.database)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # or the log beside it would make the damage good
        size = self.database.stat().st_size
        with self.database.open("r+b") as file:
            if how == "end":
                file.truncate(max(4096, size // 2 // 4096 * 4096))
            else:
                file.write(os.urandom(4096))

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        folder = self.database.parent
        for path in self.files():
            path.chmod(0o400)
        folder.chmod(0o500)
        try:
            yield
        finally:
            folder.chmod(0o700)
            for path in self.files():
                path.chmod(0o600)

    @contextlib.contextmanager
    def taken_by_a_server(self) -> Iterator[None]:
        """Hold the lock by which servers keep each other out."""
        with self.database.with_name(self.database.name + "-lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def open_in_a_browser(self) -> Iterator[None]:
        """Hold SQLite's own lock, as a program that looks into databases does."""
        db = sqlite3.connect(self.database, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            db.close()
