"""A participant that uses the Python client as programs do, and records what it did and what it was told.

As a process of its own it is ``python -m tests.faults.participant SPEC`` (JSON, see `Participant`), commanded by lines on its
standard input: ``quiet`` (write no more, and wait for all answers), ``finish`` (read to the end), ``fork``. It answers each
with a line. A kernel does the same with `Participant` itself.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from typing import Any

import ebus_jupyter as ebus
from ebus_jupyter.client.client import Client

from .check.records import Recorder

QUIET_SECONDS = 60.0
FINISH_SECONDS = 60.0


class Participant:
    """Writes to buses and reads them, on threads of its own, until it is told to finish.

    Args:
        spec: ``name``, ``user``, ``kind``, ``record`` (the file), ``buses`` (see `stage.BUSES`), ``seed``, and ``url`` and
            ``token``, or none of them in a kernel.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.name, self.user, self.kind = spec["name"], spec["user"], spec["kind"]
        self.record = Recorder(spec["record"])
        self._buses = spec["buses"]
        self._random = random.Random(spec["seed"])
        self._writes, self._finishes = True, False
        self._readers = self._turns = 0
        self._file = spec["record"]
        self._lock = threading.Lock()
        self._forked = threading.Event()
        self._acks: list[tuple[int, Any]] = []
        self._n = 0
        self.record("me", name=self.name, user=self.user, kind=self.kind)
        self.client: Client = ebus.connect(spec["url"], spec["token"]) if "url" in spec else self._kernel_client()
        self._threads = [threading.Thread(target=self._guarded, args=(self._write,), daemon=True)]
        self._threads += [
            threading.Thread(target=self._guarded, args=(self._read, bus, pace), daemon=True)
            for bus in self._buses
            for pace in (0.0, 0.02)
            if pace == 0.0 or bus["slow"]
        ]

    @staticmethod
    def _kernel_client() -> Client:
        from ebus_jupyter.client.discover import default_client

        return default_client()

    def start(self) -> Participant:
        for thread in self._threads:
            thread.start()
        return self

    def _guarded(self, work: Any, *args: Any) -> None:
        try:
            work(*args)
        except BaseException as error:
            self.record("error", text=f"{work.__name__}: {type(error).__name__}: {error}")
            raise

    def _open(self, facts: dict[str, Any]) -> Any:
        """Open a bus, however long the server is away. Every refusal must be one that says to try again."""
        while True:
            try:
                return self.client.bus(facts["name"], scope=facts["scope"], timeout=60, **facts["spec"])
            except (ebus.BackendError, ebus.Closed, ebus.ConnectionLost, ebus.NoSuchBus):
                # The file can't be read now, the bus was deleted at this moment, or the server is away for long.
                if self._finishes or self.client.status == "closed":
                    raise
                time.sleep(0.1)

    # --- writing ----------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        buses = {facts["key"]: self._open(facts) for facts in self._buses}
        by_key = {facts["key"]: facts for facts in self._buses}
        you = self.client.you
        while you is None:
            time.sleep(0.01)
            you = self.client.you
        self.record("me", name=self.name, user=self.user, kind=self.kind, id=you.id)
        while self._writes:
            key = self._random.choice(list(buses))
            for _ in range(self._random.choice([1, 1, 1, 3, 20])):
                if not self._write_one(key, by_key[key], buses[key]):
                    buses[key] = self._open(by_key[key])
            self._collect()
            time.sleep(self._random.uniform(0, 0.15))
        until = time.monotonic() + QUIET_SECONDS
        while self._acks and time.monotonic() < until:
            self._collect()
            time.sleep(0.02)

    def _write_one(self, key: str, facts: dict[str, Any], bus: Any) -> bool:
        """Write one value. Returns whether the bus is still open."""
        how: dict[str, Any] = {}
        if facts["spec"].get("retain") == "keys":
            how["key"] = f"k{self._random.randrange(8)}"
        elif facts["private"]:
            how = self._random.choice([{}, {}, {}, {"to": [self._random.choice(["alice", "bob"])]}, {"echo": False}])
        removes = "key" in how and self._random.random() < 0.1
        self._n += 1
        n = self._n
        self.record("write", n=n, bus=key, **how, **({"deleted": True} if removes else {}))
        try:
            if removes:
                ack = bus.remove(how["key"])
            else:
                ack = bus.write([self.name, n, "x" * self._random.choice([0, 10, 100, 2000])], **how)
        except ebus.Closed as error:
            self.record("refused", n=n, code=error.code)
            return False
        except ebus.EbusError as error:
            self.record("refused", n=n, code=error.code)
        else:
            self._acks.append((n, ack))
        return True

    def _collect(self) -> None:
        waiting = []
        for n, ack in self._acks:
            if not ack.done:
                waiting.append((n, ack))
            elif ack.error is None:
                self.record("ack", n=n, offset=ack.result(0))
            elif isinstance(ack.error, ebus.Closed | ebus.NoSuchBus):
                self.record("unknown", n=n, code=ack.error.code)
            else:
                self.record("refused", n=n, code=ack.error.code, text=str(ack.error))
        self._acks = waiting

    # --- reading ----------------------------------------------------------------------------------------------------

    def _read(self, facts: dict[str, Any], pace: float) -> None:
        while not self._finishes:
            bus = self._open(facts)
            with self._lock:
                self._readers += 1
                number = self._readers
                since = "start" if pace == 0.0 or self._random.random() < 0.5 else None
            self.record("reader", r=number, bus=facts["key"], since=since)
            try:
                stream = bus.deliveries(since)
            except ebus.EbusError as error:
                self.record("closed", r=number, code=error.code, reason=str(error))
                continue
            if self._follow(stream, number, pace):
                return

    def _follow(self, stream: Any, number: int, pace: float) -> bool:
        """Read a stream to its end. Returns True when there is to be no other one after it."""
        pause = 0.0
        until = float("inf")
        while True:
            if self._finishes and until == float("inf"):
                until = time.monotonic() + FINISH_SECONDS
            try:
                message = stream.get(timeout=0.25)
            except TimeoutError:
                if self._finishes and stream.status == "live" and stream.caught_up:
                    self.record("end", r=number, caught_up=True)
                    return True
                if time.monotonic() > until:
                    self.record("end", r=number, caught_up=False, status=stream.status, why=repr(self.client.why))
                    return True
                continue
            except ebus.Lagged as lag:
                self.record("lagged", r=number, skipped=lag.skipped, after=lag.resume_after)
                continue
            except ebus.EbusError as error:
                self.record("closed", r=number, code=error.code, reason=str(error))
                return self.client.status == "closed"
            self._heard(number, message)
            pause += pace
            if pause > 0.2 and not self._finishes:  # a slow reader sleeps for a while, and is behind then
                time.sleep(self._random.uniform(0, 2 * pause))
                pause = 0.0
                if self._random.random() < 0.02:
                    self.record("left", r=number)
                    stream.close()
                    return False

    def _heard(self, number: int, message: Any) -> None:
        import msgspec

        sender = message.sender
        facts = {"key": message.key} if message.key is not None else {}
        if message.deleted:
            facts["deleted"] = True
        value = msgspec.msgpack.decode(message.value)
        self.record(
            "heard", r=number, o=message.offset, id=message.message_id, v=value,
            s=[sender.id, sender.kind, sender.user], **facts,
        )  # fmt: skip

    # --- what a kernel's cell does ------------------------------------------------------------------------------------

    def work(self) -> str:
        """Write from this thread until it is interrupted, at any point. Every write is accounted for, all the same."""
        if self.client.you is None:
            return "not there yet"
        self._turns += 1
        name = f"{self.name}-cell{self._turns}"
        record = Recorder(self._file.replace(self.name, name))
        record("me", name=name, user=self.user, kind=self.kind, id=self.client.you.id)
        begun: list[int] = []
        acks: dict[int, Any] = {}
        try:
            bus = self.client.bus("plain", size=100_000)
            while True:
                begun.append(len(begun) + 1)
                record("write", n=begun[-1], bus="plain")
                acks[begun[-1]] = bus.write([name, begun[-1], ""])
        except KeyboardInterrupt:
            pass
        for n in begun:
            try:
                if n in acks:
                    record("ack", n=n, offset=acks[n].result(QUIET_SECONDS))
                else:
                    record("unknown", n=n, code="interrupted")
            except ebus.EbusError as error:
                record("refused", n=n, code=error.code)
        return f"{len(acks)} written"

    # --- commands ---------------------------------------------------------------------------------------------------

    def quiet(self) -> str:
        """Write no more; returns once every write has its answer, or time is up."""
        self._writes = False
        self._threads[0].join(QUIET_SECONDS + 30)
        return f"{len(self._acks)} unanswered"

    def finish(self) -> str:
        """Read to the end, and close."""
        self._finishes = True
        for thread in self._threads:
            thread.join(FINISH_SECONDS + 30)
        alive = sum(thread.is_alive() for thread in self._threads)
        if alive:
            self.record("error", text=f"{alive} threads have not ended")
        self.client.close()
        return "finished"

    def fork(self) -> str:
        """Fork. The child must be told that it is one, and must not disturb the parent."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            said = "nothing"
            try:
                self.client.bus(self._buses[0]["name"])
            except ebus.Closed as error:
                said = str(error.details.get("reason"))
            except BaseException as error:
                said = repr(error)
            os.write(write, said.encode())
            os._exit(0)
        os.close(write)
        said = os.read(read, 1000).decode()
        os.close(read)
        os.waitpid(child, 0)
        if said != "forked":
            self.record("error", text=f"a forked child was told {said!r}")
        return said


def main() -> None:
    participant = Participant(json.loads(sys.argv[1])).start()
    print("ready", flush=True)
    for line in sys.stdin:
        print(getattr(participant, line.strip())(), flush=True)
    os._exit(0)  # whoever commands is gone, or has all that it wanted


if __name__ == "__main__":
    main()
