"""Whatever happens to a client, it is live, reconnecting, or closed with a reason, and no call outlives its time-out.

A program uses several clients in a simulated world (`simulation`): buses, states, streams, presence, callbacks, filters,
acks. Decoders, encoders, callbacks, listeners and filters raise what they like, peers write what can't be decoded, lines are
cut and garbled, the broker restarts, forgets, and says goodbye, other threads close what is in use. After each step:

- every client is closed with a reason, or its driver runs; no thread has died, and none waits with a lock held;
- every call has returned or raised within its time-out, in simulated time;

and once the world is at rest, with the broker there:

- every client that was not closed is live, and every write has its answer;
- what was accepted is in the log, once, and was seen by every stream, once and in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ebus_jupyter.client.ack import Ack
from ebus_jupyter.client.bus import Bus
from ebus_jupyter.client.client import Client
from ebus_jupyter.client.state import State
from ebus_jupyter.client.stream import Stream
from ebus_jupyter.core.broker.entry import Entry
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import Message, Participant
from ebus_jupyter.errors import Closed, EbusError, Lagged, Reject, SpecConflict
from tests.core.logs import perform

from .simulation import SimLine, World

FAULTS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("a fault"),
    "KeyError": lambda: KeyError("a fault"),
    "StopIteration": lambda: StopIteration("a fault"),
    "Closed": lambda: Closed("a fault", reason="fault"),
    "CancelledError": lambda: asyncio.CancelledError("a fault"),
    "SystemExit": lambda: SystemExit("a fault"),
    "Unprintable": lambda: Unprintable(),
}
"""What code of a program raises, by name. The name is also a value whose decoding and encoding raise it."""

UNDECODABLE = [
    msgspec.msgpack.encode(msgspec.msgpack.Ext(1, msgspec.msgpack.encode(["<f3", [1], b"abc"]))),  # no such dtype
    msgspec.msgpack.encode(msgspec.msgpack.Ext(1, b"\xc1")),
    msgspec.msgpack.encode(msgspec.msgpack.Ext(-1, b"abc")),  # a timestamp of three bytes
]

NAMES = ["plain", "keys", "filtered"]
TIMEOUT = 5.0
LATE = 1e-6

fault = st.sampled_from(sorted(FAULTS))
which = st.integers(0, 11)


class Unprintable(Exception):
    """An error whose text can't be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Touchy(Codec[Any]):
    """A codec that raises a fault where a value is the name of one."""

    def encode(self, value: Any, bus: str = "the bus") -> bytes:
        if isinstance(value, dict) and value.get("encode") in FAULTS:
            raise FAULTS[value["encode"]]()
        return super().encode(value, bus)

    def decode(self, data: bytes | msgspec.Raw) -> Any:
        value = super().decode(data)
        if isinstance(value, str) and value in FAULTS:
            raise FAULTS[value]()
        return value


def runs(client: Client) -> bool:
    """Whether a thread or a task runs a client's connection."""
    driver: Any = client.connection._driver
    if driver.loop is None:
        return bool(driver._thread.is_alive())
    return not hasattr(driver, "_running") or not driver._running.done()


class Read:
    """A stream, and what it has read."""

    def __init__(self, stream: Stream[Message[Any]], bus: Bus[Any, Any], after: int, life: int) -> None:
        self.stream = stream
        self.bus = bus
        self.after = after
        self.life = life
        self.offsets: list[int] = []
        self.skipped: set[int] = set()  # by the stream that this one is a clone of
        self.lagged = 0
        self.ended: EbusError | None = None

    def read(self) -> None:
        while self.ended is None:
            try:
                self.offsets.append(self.stream.get_nowait().offset)
            except LookupError:
                return
            except Lagged:
                self.lagged += 1
            except EbusError as error:
                self.ended = error


class Machine(RuleBasedStateMachine):
    """One program, with its clients."""

    @initialize(seed=st.integers(0, 1 << 16))
    def begin(self, seed: int) -> None:
        self.stack = contextlib.ExitStack()
        gc.disable()  # a collection calls finalisers, at a moment that is another one in each run
        self.stack.callback(gc.enable)
        logging.disable(logging.CRITICAL)  # what is logged is meant, and there are megabytes of it
        self.stack.callback(logging.disable, logging.NOTSET)
        self.world = World(seed, Limits(filter_seconds=2.0))
        self.stack.enter_context(self.world.patched())
        self.world.start()
        self.clients: list[Client] = []
        self.buses: list[Bus[Any, Any]] = []
        self.streams: list[Read] = []
        self.states: list[State[Any]] = []
        self.acks: list[tuple[Client, Bus[Any, Any], Ack, Any]] = []
        self.last_value = 0
        self.life = self.life_at_rest = 0  # counts what makes the past of all buses another one
        # A program that does a little of everything; the rules go on from here.
        for n, on_loop in enumerate((False, True)):
            self.new_client(on_loop)
            for name in NAMES:
                self.open(n + 2 * (name == "filtered" and n == 0), name, "")
            self.open_state(n, "SystemExit")
            self.read(3 * n, past=True)
            self.call_back(3 * n, "SystemExit", later=bool(n), off=False)
            self.watch_presence(3 * n, "CancelledError")
        for n, name in enumerate(FAULTS):
            for bus in range(len(NAMES)):
                self.write_one(3 * (n % 2) + bus, name, True, True)

    # --- calls ------------------------------------------------------------------------------------------------------

    def call(self, function: Callable[[], Any], timeout: float = 0.0) -> Any:
        """Call what may take ``timeout``; what it raises is as good as what it returns."""
        begun = self.world.now
        try:
            return function()
        except (EbusError, TimeoutError, TypeError, ValueError) as error:
            return error
        except (KeyboardInterrupt, SystemExit) as error:  # what a line was told to raise, on this thread
            return error
        finally:
            assert self.world.now - begun <= timeout + LATE, f"a call took {self.world.now - begun} s"

    def bus_of(self, n: int) -> Bus[Any, Any]:
        return self.buses[n % len(self.buses)]

    def line(self, n: int) -> SimLine | None:
        lines = self.world.lines
        return lines[n % len(lines)] if lines else None

    # --- clients, buses, streams ------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.clients) < 4)
    @rule(on_loop=st.booleans())
    def new_client(self, on_loop: bool) -> None:
        n = len(self.clients)
        who = Participant("", "kernel", f"user{n}", f"User {n}", f"k{n}")
        client = self.world.client(who, on_loop=on_loop)
        client.on_error(lambda error: self.fail("ValueError"))
        self.clients.append(client)

    @staticmethod
    def fail(name: str) -> None:
        raise FAULTS[name]()

    @rule(n=which, name=st.sampled_from(NAMES), fault=fault)
    def open(self, n: int, name: str, fault: str) -> None:
        client = self.clients[n % len(self.clients)]
        options: dict[str, Any] = {"retain": "keys"} if name == "keys" else {}
        if name == "filtered" and n % 2 == 0:

            def filtered(value: Any, sender: Participant) -> Any:
                if value in FAULTS:
                    raise FAULTS[value]()
                if value == "reject":
                    raise Reject("no \ud800")
                return value

            async def filtered_later(value: Any, sender: Participant) -> Any:
                await asyncio.sleep(0.01)
                return filtered(value, sender)

            options["filter"] = filtered if n % 4 else filtered_later
        found = self.call(lambda: client.bus(name, timeout=TIMEOUT, **options), TIMEOUT)
        if isinstance(found, Bus):
            found.codec = found.emits_codec = Touchy()
            self.buses.append(found)

    @precondition(lambda self: self.buses)
    @rule(n=which, what=st.sampled_from([{"size": 7}, {"flush_interval": "soon"}, {"flush_size": 2}, {"size": "x"}]))
    def open_again(self, n: int, what: dict[str, Any]) -> None:
        bus = self.bus_of(n)
        again = self.call(lambda: bus.client.open_bus(bus.name, timeout=TIMEOUT, **what), TIMEOUT)
        if isinstance(again, SpecConflict):
            assert bus.spec.size != 7
        if "soon" in what.values() or "x" in what.values():
            assert isinstance(again, ValueError | TypeError | Closed), again
        if isinstance(again, Bus):
            self.call(again.close)

    @precondition(lambda self: self.buses)
    @rule(n=which, past=st.booleans())
    def read(self, n: int, past: bool) -> None:
        bus = self.bus_of(n)
        uri, life = bus.address, self.life if self.life == self.life_at_rest else -1
        stream = self.call(lambda: bus.messages(since="start" if past else None), 5.0)
        if isinstance(stream, Stream):
            known = self.offsets(uri)
            begun = past or (bus.is_receiving and bus.status == "live")
            after = 0 if past else known[-1] if known else 0
            # One that begins now, while the line is away, begins when it can.
            self.streams.append(Read(stream, bus, after if begun else -1, life))

    @precondition(lambda self: self.streams)
    @rule(n=which)
    def clone_or_close(self, n: int) -> None:
        read = self.streams[n % len(self.streams)]
        if n % 2:
            twin = copy.copy(read)
            twin.stream, twin.offsets = read.stream.clone(), [*read.offsets]
            twin.skipped = read.skipped | {error.offset for error in read.stream.errors}
            self.streams.append(twin)
        else:
            read.stream.close()
            self.streams.remove(read)

    @precondition(lambda self: len(self.buses) > 1)
    @rule(n=which, delete=st.booleans())
    def close_bus(self, n: int, delete: bool) -> None:
        bus = self.bus_of(n)
        if delete and bus.name != "filtered":
            self.life += 1
            self.call(lambda: bus.delete(TIMEOUT), TIMEOUT)
        else:
            self.call(bus.close)
            self.buses.remove(bus)

    @precondition(lambda self: len(self.clients) > 1)
    @rule(n=which, timeout=st.sampled_from([0.0, 1.0]))
    def close_client(self, n: int, timeout: float) -> None:
        client = self.clients[n % len(self.clients)]
        self.call(lambda: client.close(timeout), timeout)
        assert client.status == "closed"

    @rule(on_loop=st.booleans(), moves=st.integers(0, 12))
    def come_and_go(self, on_loop: bool, moves: int) -> None:
        """A client that is closed while it connects."""
        client = self.world.client(Participant("", "kernel", "guest", "Guest", "k9"), on_loop=on_loop)
        self.world.step(moves)
        client.close(0)
        self.world.run(0.1)
        assert client.status == "closed"
        assert client.why is not None
        self.world.run(3)
        assert not runs(client), "it goes on after its end"

    # --- writing and reading ----------------------------------------------------------------------------------------

    @precondition(lambda self: self.buses)
    @rule(
        n=which,
        what=st.one_of(st.none(), fault, st.just("reject")),
        keyed=st.booleans(),
        wait=st.booleans(),
        times=st.integers(1, 8),
    )
    def write(self, n: int, what: str | None, keyed: bool, wait: bool, times: int) -> None:
        for _ in range(times):
            self.write_one(n, what, keyed, wait)

    def write_one(self, n: int, what: str | None, keyed: bool, wait: bool) -> None:
        bus = self.bus_of(n)
        if what is None:
            self.last_value += 1
        value = self.last_value if what is None else what
        key = f"k{n % 3}" if keyed and bus.name == "keys" else None
        # Another participant's codec takes what this one's would not.
        bus.codec, own = Codec(), bus.codec
        ack = self.call(lambda: bus.write(value, key=key, wait=wait), 30.0)
        bus.codec = own
        if isinstance(ack, Ack):
            self.acks.append((bus.client, bus, ack, value))  # type: ignore[arg-type]

    @precondition(lambda self: self.buses)
    @rule(n=which, data=st.sampled_from(UNDECODABLE))
    def write_undecodable(self, n: int, data: bytes) -> None:
        bus = self.bus_of(n)
        ack = self.call(lambda: bus._publish(data, key="k0" if bus.name == "keys" else None), 30.0)
        if isinstance(ack, Ack):
            self.acks.append((bus.client, bus, ack, None))  # type: ignore[arg-type]

    @precondition(lambda self: self.buses)
    @rule(n=which, name=fault)
    def write_unencodable(self, n: int, name: str) -> None:
        try:
            self.bus_of(n).write({"encode": name})
        except BaseException as error:
            assert not isinstance(error, KeyboardInterrupt)
        else:
            raise AssertionError("it was written")

    @precondition(lambda self: self.streams)
    @rule(n=which)
    def read_all(self, n: int) -> None:
        self.call(self.streams[n % len(self.streams)].read)

    @precondition(lambda self: self.acks)
    @rule(n=which, meanwhile=st.sampled_from(["", "cut", "restart", "close", "bye", "interrupt"]), wait=st.floats(0, 2))
    def wait_for_answer(self, n: int, meanwhile: str, wait: float) -> None:
        client, _, ack, _ = self.acks[-1 - n % len(self.acks)]
        self.happens(meanwhile, client, n, wait)
        found = self.call(lambda: ack.result(TIMEOUT), TIMEOUT)
        if client.status == "closed":
            assert not isinstance(found, TimeoutError), "closed, and nobody was told"

    @precondition(lambda self: self.buses)
    @rule(
        n=which,
        what=st.sampled_from(["get", "history", "buses", "seats", "flush", "wait_live", "replace"]),
        meanwhile=st.sampled_from(["", "", "cut", "restart", "close", "bye"]),
        wait=st.floats(0, 2),
    )
    def wait_for(self, n: int, what: str, meanwhile: str, wait: float) -> None:
        bus = self.bus_of(n)
        client: Any = bus.client
        calls: dict[str, Callable[[], Any]] = {
            "get": lambda: bus.stream().get(TIMEOUT),
            "history": lambda: bus.history(5, TIMEOUT),
            "buses": lambda: client.buses(TIMEOUT),
            "seats": lambda: bus.presence.seats(TIMEOUT),
            "flush": lambda: client.flush(TIMEOUT),
            "wait_live": lambda: client.wait_live(TIMEOUT),
            "replace": lambda: self.states[0].replace("k0", 1, 2, TIMEOUT) if self.states else None,
        }
        self.happens(meanwhile, client, n, wait)
        # A read waits for its beginning, and then for each page of what is kept.
        found = self.call(calls[what], 3 * TIMEOUT)
        if client.status == "closed" and what != "replace":
            assert not isinstance(found, TimeoutError), f"{what}: closed, and nobody was told"

    def happens(self, what: str, client: Client, n: int, wait: float) -> None:
        """Let something happen while the program waits."""

        def do() -> None:
            match what:
                case "cut" if (line := self.line(n)) is not None:
                    self.world.cut(line, n)
                case "restart":
                    self.world.restart(forget=False)
                case "close":
                    client.close(0)
                case "bye" if (line := self.line(n)) is not None:
                    line.inbox.append((frames.encode(frames.Bye("forbidden", "go away", False)), 1))
                case "interrupt" if (line := self.line(n)) is not None:
                    line.fail_send = KeyboardInterrupt()

        if what:
            self.world.soon.append((self.world.now + wait, do))
            self.world.soon = type(self.world.soon)(sorted(self.world.soon, key=lambda each: each[0]))

    # --- callbacks, presence, states --------------------------------------------------------------------------------

    @precondition(lambda self: self.buses)
    @rule(n=which, name=fault, later=st.booleans(), off=st.booleans())
    def call_back(self, n: int, name: str, later: bool, off: bool) -> None:
        def callback(value: Any) -> None:
            self.fail(name)

        async def callback_later(value: Any) -> None:
            await asyncio.sleep(0.01)
            self.fail(name)

        function = callback_later if later else callback
        bus = self.bus_of(n)
        self.call(lambda: bus.on(function), 5.0)
        if off:
            bus.off(function)

    @precondition(lambda self: self.buses)
    @rule(n=which, name=fault)
    def watch_presence(self, n: int, name: str) -> None:
        bus = self.bus_of(n)
        self.call(lambda: bus.presence.on_change(lambda: self.fail(name)))
        self.call(lambda: bus.presence.set(typing=n))

    @precondition(lambda self: any(bus.name == "keys" for bus in self.buses) and len(self.states) < 3)
    @rule(n=which, name=fault)
    def open_state(self, n: int, name: str) -> None:
        buses = [bus for bus in self.buses if bus.name == "keys"]
        bus = buses[n % len(buses)]
        state = self.call(lambda: State(bus, TIMEOUT), 5.0 + TIMEOUT)
        if isinstance(state, State):
            self.states.append(state)
            state.on_change(lambda change: None if change.local else self.fail(name))

    @precondition(lambda self: self.states)
    @rule(n=which)
    def set(self, n: int) -> None:
        state = self.states[n % len(self.states)]
        self.last_value += 1
        self.call(lambda: state.__setitem__(f"k{n % 3}", self.last_value), 30.0)

    # --- faults -----------------------------------------------------------------------------------------------------

    @rule(n=which, carried=st.integers(0, 5))
    def cut(self, n: int, carried: int) -> None:
        line = self.line(n)
        if line is not None:
            self.world.cut(line, carried)

    @rule(n=which, at=st.integers(0, 1 << 10))
    def garble(self, n: int, at: int) -> None:
        line = self.line(n)
        if line is not None:
            line.garble = at

    @rule(n=which, data=st.binary(max_size=40))
    def say_nonsense(self, n: int, data: bytes) -> None:
        line = self.line(n)
        if line is not None:
            line.deliver(data)

    @rule(n=which, error=st.sampled_from([ConnectionResetError, RuntimeError, SystemExit]))
    def fail_to_send(self, n: int, error: type[BaseException]) -> None:
        line = self.line(n)
        if line is not None:
            line.fail_send = error()
            if self.buses:
                self.write_one(n, None, False, True)

    @rule(n=which)
    def fail_inside(self, n: int) -> None:
        """A bug: the session raises, once, at the end of a connection."""
        session = self.clients[n % len(self.clients)].connection.session

        def fail() -> Any:
            del session.connection_lost  # type: ignore[method-assign]
            raise RuntimeError("a bug")

        session.connection_lost = fail  # type: ignore[method-assign]

    @rule(up=st.booleans())
    def broker_is_away(self, up: bool) -> None:
        self.world.up = up

    @rule(forget=st.booleans())
    def restart(self, forget: bool) -> None:
        self.life += forget
        self.world.restart(forget=forget)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.1, 3.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.run(seconds)

    # --- what always holds ------------------------------------------------------------------------------------------

    @invariant()
    def every_client_lives_or_says_why(self) -> None:
        if not hasattr(self, "world"):
            return
        crashed = [f"{thread.name}: {type(thread.error).__name__}: {thread.why}" for thread in self.world.crashed]
        assert not crashed, "\n".join(crashed)
        assert self.world.loop_thread.alive
        for client in self.clients:
            connection = client.connection
            if connection.session.closed is not None:
                assert client.status == "closed", client.status
                assert client.why is not None
                continue
            assert client.status in ("connecting", "live", "reconnecting")
            assert runs(client), f"{client.status}, and nothing runs it"
            assert (client.why is None) == (client.status != "reconnecting")

    def offsets(self, uri: str) -> list[int]:
        return [entry.offset for entry in self.log(uri)]

    def log(self, uri: str) -> list[Entry]:
        """What the broker keeps of a bus."""
        kept = perform(self.world.play.logs.backend.open(uri, None, ""))
        return [] if kept is None else kept.entries

    @rule()
    def come_to_rest(self) -> None:
        """The world is at rest: everything has its answer, and everyone is up to date."""
        self.world.up = True
        self.world.run(5)  # until everything that was to happen has happened
        for line in self.world.lines:
            line.garble = line.fail_send = None
        self.world.run(55)
        self.every_client_lives_or_says_why()
        for client in self.clients:
            assert client.status in ("live", "closed"), f"{client.status}: {client.why}"
            if client.status == "live":
                assert client.connection.session.live
                assert client.connection.flush(0) == 0, "a write without an answer"
        log = {entry.offset: entry.value for entry in self.log("ebus:server/plain")}
        values = [*log.values()]
        for client, bus, ack, value in self.acks:
            assert ack.done, f"{ack} of a client that is {client.status}"
            if ack.error is None and self.life == 0 and isinstance(value, int) and bus.name == "plain":
                offset = ack.result(0)
                assert msgspec.msgpack.decode(log[offset]) == value
                assert values.count(log[offset]) == 1
        for read in self.streams:
            self.check_stream(read)
        for state in self.states:
            self.check_state(state)
        self.acks.clear()
        self.life_at_rest = self.life

    def check_stream(self, read: Read) -> None:
        until = self.world.now + 60
        read.read()
        while read.ended is None and not read.stream.caught_up:  # a page of history is asked for when one is needed
            assert self.world.now < until, "a stream does not catch up"
            self.world.run(1)
            read.read()
        assert read.offsets == sorted({*read.offsets}) or read.life != self.life
        if read.ended is not None:
            assert read.bus.status == "closed", f"{read.bus}: {read.ended}"
        elif read.life == self.life and read.after >= 0 and read.bus.name == "plain":
            skipped = read.skipped | {error.offset for error in read.stream.errors}
            # What was on its way when the stream was opened may be in it.
            first = min([*read.offsets, read.after + 1])
            expected = [n for n in self.offsets(read.bus.address) if n >= first and n not in skipped]
            assert read.offsets == expected, (read.offsets, expected)
            assert not read.lagged

    def check_state(self, state: State[Any]) -> None:
        if state.error is not None or state.bus.status == "closed":
            return
        last = {entry.key: entry for entry in self.log(state.bus.address) if entry.key}
        for key, entry in last.items():
            try:
                value = Touchy().decode(entry.value)
            except BaseException:  # then the state goes on showing what it showed
                continue
            assert state[key] == value, f"{key}: {state[key]}, and not {value}"

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.come_to_rest()
            for client in self.clients:
                self.call(lambda client=client: client.close(1.0), 1.0)  # type: ignore[misc]
            self.world.run(10)
            self.every_client_lives_or_says_why()
            assert {thread.name for thread in self.world.threads} <= {"program", "background", "loop"}
            self.world.finish()
        except BaseException:
            for client in self.clients:
                client.connection.session.closed = Closed("the test has failed.")
            self.world.abandon()
            raise
        finally:
            self.stack.close()


TestClientUnderFaults = Machine.TestCase
# Each example is short of time and long of chances: it takes many to close a client just when it is welcomed.
TestClientUnderFaults.settings = settings(max_examples=3 * settings.default.max_examples)  # type: ignore[union-attr]
