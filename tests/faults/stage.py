"""The stage: a server, its buses, its participants, each on a line of its own, and what the injector does to all of them."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .actors import Actor, KernelActor, Process
from .check.records import Recorder
from .filters import MARK
from .proxy import Line, Proxy
from .raw import LOST, Auditor, RawParticipant
from .server import FaultyServer, Starter

PEOPLE = ("alice", "bob")


def _bus(
    name: str, scope: str = "server", *, slow: bool = False, complete: bool = False, **spec: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "key": name,
        "scope": scope,
        "spec": spec,
        "slow": slow,
        "complete": complete,
        "private": False,
    }


def buses_of(user: str) -> list[dict[str, Any]]:
    """The buses that a participant of this user writes to and reads.

    ``complete``: nothing is ever dropped from its log, so the checker knows all of it. ``private``: some writes are not for
    everybody.
    """
    return [
        _bus("plain", slow=True, complete=True, size=100_000) | {"private": True},
        _bus("narrow", slow=True, size=40),
        _bus("state", slow=True, retain="keys", size=50),
        _bus("newest", retain="latest"),
        _bus("marked", complete=True, size=100_000, filter="marks"),
        _bus("brief", size=100_000),
        _bus("own", "user", complete=True, size=100_000) | {"key": f"own@{user}"},
    ]


class Stage:
    """One run of a server and its participants.

    Args:
        folder: For everything that is written.
        starter: Forks the server.
        seed: Of all that is drawn at random.
        processes, raws, kernels, pages: How many participants of each kind.
    """

    def __init__(
        self,
        folder: Path,
        starter: Starter,
        seed: int,
        *,
        processes: int = 2,
        raws: int = 4,
        kernels: int = 0,
        pages: int = 0,
    ) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.records = folder / "records"
        self.records.mkdir(parents=True)
        self.record = Recorder(self.records / "injector.jsonl")
        # The path of a kernel's Unix sockets must be short.
        self._home = tempfile.TemporaryDirectory(prefix="ebus-", dir="/tmp", ignore_cleanup_errors=True)
        self.server = FaultyServer(Path(self._home.name) / "server", starter)
        self.proxy = Proxy(lambda: self.server.port)
        self.copies: list[Path] = []
        self.faults = 0
        self._wanted = processes, raws, kernels, pages
        self.actors: list[Actor] = []
        self.pages: Any = None
        self.raws: list[tuple[RawParticipant, threading.Thread, Line]] = []
        self._made = 0
        self._known: dict[str, int] = {}  # how many histories each bus has had
        self.stopped = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    # --- beginning and end --------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the server and everybody."""
        self.server.start()
        for user in PEOPLE:
            for facts in buses_of(user):
                self._tell_bus(facts, [user] if facts["scope"] == "user" else None)
        processes, raws, kernels, pages = self._wanted
        for n in range(processes):
            name = self._name("client")
            user = PEOPLE[n % 2]
            line = self.proxy.line(name)
            self.actors.append(Process(self.client_spec(name, user, line), line))
        for n in range(raws):
            self._new_raw(PEOPLE[n % 2])
        for n in range(kernels):
            user, line = PEOPLE[n % 2], self.proxy.line(f"kernel {n}")
            self.actors.append(KernelActor(self.server, lambda id_, user=user: self.kernel_spec(id_, user), user, line))
        if pages:
            from .pages import PageActor, Pages  # a minute of faults is to do without a browser

            self.pages = Pages()
            for n in range(pages):
                name, user = self._name("page"), PEOPLE[n % 2]
                line = self.proxy.line(name)
                self.actors.append(PageActor(self.pages, self.page_spec(name, user, line), line))
        for actor in self.actors:
            actor.wait_ready()
        self._sampler.start()

    def _tell_bus(self, facts: dict[str, Any], users: list[str] | None) -> None:
        if facts["key"] not in self._known:
            self._known[facts["key"]] = 0
            retain, mark = facts["spec"].get("retain", "log"), MARK if facts["name"] == "marked" else ""
            self.record("bus", name=facts["key"], retain=retain, complete=facts["complete"], users=users, mark=mark)

    def _name(self, prefix: str) -> str:
        self._made += 1
        return f"{prefix}{self._made}"

    def _spec(self, name: str, user: str, kind: str, buses: list[dict[str, Any]]) -> dict[str, Any]:
        record = str(self.records / f"{name}.jsonl")
        seed = self.random.random()
        return {"name": name, "user": user, "kind": kind, "record": record, "buses": buses, "seed": seed}

    def client_spec(self, name: str, user: str, line: Line) -> dict[str, Any]:
        """What a Python client in a process of its own is told."""
        return {**self._spec(name, user, "client", buses_of(user)), "url": line.url, "token": self.server.token(user)}

    def page_spec(self, name: str, user: str, line: Line) -> dict[str, Any]:
        """What a page is told."""
        return {**self._spec(name, user, "page", buses_of(user)), "url": line.url, "token": self.server.token(user)}

    def kernel_spec(self, kernel_id: str, user: str) -> dict[str, Any]:
        """What a participant in a kernel is told. It has a bus in the kernel's own scope, too."""
        mine = _bus("mine", "kernel", size=100_000) | {"key": f"mine@{kernel_id}"}
        self._tell_bus(mine, [user])
        return self._spec(self._name("kernel"), user, "kernel", [*buses_of(user), mine])

    def replace(self, actor: Actor) -> None:
        """Kill an actor's process; another participant takes its place."""
        self.note_killed(actor.name)
        if isinstance(actor, KernelActor):
            actor.replace(self.kernel_spec(actor.kernel.id, actor.user))
        elif isinstance(actor, Process):
            actor.replace(self.client_spec(self._name("client"), actor.user, actor.line))
        else:
            actor.replace(self.page_spec(self._name("page"), actor.user, actor.line))

    def _new_raw(self, user: str) -> None:
        name = self._name("raw")
        line = self.proxy.line(name)
        raw = RawParticipant(
            line.url, self.server.token(user), name, user, self.records / f"{name}.jsonl", buses_of(user), self._made
        )
        thread = threading.Thread(target=raw.run, name=name, daemon=True)
        self.raws.append((raw, thread, line))
        thread.start()

    def lines(self) -> list[tuple[str, Line]]:
        """Who is at the end of each line now."""
        found = [(actor.name, actor.line) for actor in self.actors]
        return found + [(raw.name, line) for raw, _, line in self.raws]

    def close(self) -> None:
        """After the last fault: everything heals, everybody is quiet, and reads to the end."""
        for _, line in self.lines():
            line.heal()
        waits = [threading.Thread(target=actor.command, args=("quiet",)) for actor in self.actors]
        for wait in waits:
            wait.start()
        for raw, _, _ in self.raws:
            raw.writes = False
        for wait in waits:
            wait.join()
        until = time.monotonic() + 60
        while any(raw.unanswered for raw, _, _ in self.raws) and time.monotonic() < until:
            time.sleep(0.05)
        self.audit("end")
        for raw, _, _ in self.raws:
            raw.finishes = True
        waits = [threading.Thread(target=actor.command, args=("finish",)) for actor in self.actors]
        for wait in waits:
            wait.start()
        for wait in waits:
            wait.join()
        for raw, thread, _ in self.raws:
            thread.join(60)
            if thread.is_alive():
                raw.ended = True
                thread.join(30)

    def abandon(self) -> None:
        """End everything that still runs."""
        self.stopped.set()
        for raw, thread, _ in self.raws:
            raw.ended = True
            thread.join(30)
        for actor in self.actors:
            actor.close()
        if self.pages is not None:
            self.pages.close()
        self.server.stop()
        self.proxy.close()
        shutil.copy(self.server.log, self.folder)
        self._home.cleanup()

    def _sample(self) -> None:
        while not self.stopped.wait(0.5):
            with contextlib.suppress(OSError, AssertionError):
                self.record("size", bytes=self.server.memory())

    # --- faults -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def fault(self, kind: str, on: str | None = None, *, counts: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Note a fault: from now to the end of the block. One that found nothing to act on does not count."""
        begin = time.monotonic()
        yield
        if counts():
            self.faults += 1
            facts = {} if on is None else {"on": on}
            self.record("fault", **{"kind": kind, "until": time.monotonic(), **facts, "t": begin})

    def note_killed(self, name: str) -> None:
        self.record("killed", name=name)

    # --- the server ---------------------------------------------------------------------------------------------------

    def kill_server(self) -> None:
        self.server.kill9()

    def keep_copy(self) -> None:
        """Keep a copy of the file, to be put back some time. The server is down."""
        self.copies = [*self.copies[-3:], self.server.copy()]

    def start_server(self, *, opens: bool = True) -> None:
        """Start the server; ``opens``: it must be able to use its file."""
        self.server.start()
        if opens:
            self.wait_open()

    def wait_open(self) -> None:
        until = time.monotonic() + 30
        while True:
            try:
                with Auditor(self.server.url, self.server.token(PEOPLE[0])):
                    return
            except LOST:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    @contextlib.contextmanager
    def nobody_there(self) -> Iterator[None]:
        """Take all lines down meanwhile: one history ends, and another begins, behind everybody's back."""
        for _, line in self.lines():
            line.is_down = True
            line.cut(reset=True)
        try:
            yield
        finally:
            for _, line in self.lines():
                line.is_down = False

    def audit(self, phase: str, *, resumes: dict[str, int] | None = None, is_damaged: bool = False) -> dict[str, int]:
        """Record the log of every bus, at the "begin" or the "end" of a history.

        Args:
            phase: "begin" or "end".
            resumes: The number of the history that each bus goes on with, where that is known.
            is_damaged: The file is: a bus that can't be read is left out.

        Returns:
            The number of each bus's present history.
        """
        found: dict[str, dict[int, dict[str, Any]]] = {}
        epochs: dict[str, str] = {}
        for user in PEOPLE:  # what was written for one of them alone, the other is not given
            for facts in buses_of(user):
                try:
                    with Auditor(self.server.url, self.server.token(user)) as auditor:
                        number, epochs[facts["key"]] = auditor.open(facts["name"], facts["scope"], facts["spec"])
                        entries = auditor.log(number)
                except (LookupError, *LOST):
                    if not is_damaged:
                        raise
                    found.pop(facts["key"], None)
                    epochs[facts["key"]] = "unreadable"
                    continue
                if epochs[facts["key"]] != "unreadable":
                    found.setdefault(facts["key"], {}).update({line["o"]: line for line in entries})
        for key, lines in found.items():
            self._known[key] += phase == "begin"
            more = {} if resumes is None else {"resumes": resumes[key]}
            entries = [lines[offset] for offset in sorted(lines)]
            self.record("history", bus=key, phase=phase, epoch=epochs[key], entries=entries, **more)
        return dict(self._known)

    def delete_bus(self, key: str) -> None:
        """Delete a bus while everybody uses it."""
        user = PEOPLE[0]
        facts = next(facts for facts in buses_of(user) if facts["key"] == key)
        begin = time.monotonic()
        with Auditor(self.server.url, self.server.token(user)) as auditor:
            number, _ = auditor.open(facts["name"], facts["scope"], facts["spec"])
            auditor.delete(number)
        self._known[key] += 1
        self.record("history", bus=key, phase="begin", entries=[], until=time.monotonic(), t=begin)

    def stop_and_continue(self, seconds: float) -> None:
        self.server.signal(signal.SIGSTOP)
        self.stopped.wait(seconds)
        self.server.signal(signal.SIGCONT)
