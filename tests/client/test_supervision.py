"""A client is live, reconnecting or closed with a reason, whatever its broker, its listeners or its own code do."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from queue import SimpleQueue
from typing import Any

import pytest

from ebus_jupyter.client import background, driver
from ebus_jupyter.client.client import Client
from ebus_jupyter.client.driver import LoopDriver
from ebus_jupyter.client.loop_thread import loop_thread
from ebus_jupyter.core.client import events
from ebus_jupyter.core.client.session import Session
from ebus_jupyter.errors import Closed, ConnectionLost, Forbidden, ProtocolError, Unauthenticated
from ebus_jupyter.transports.base import Transport

from .conftest import Line


def fail_once(client: Client, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the session raise at the next message that arrives."""
    receive = client.connection.session.receive_data
    failures = [error]

    def receive_data(data: bytes, now: float, events: Any) -> Any:
        if failures:
            raise failures.pop()
        return receive(data, now, events)

    monkeypatch.setattr(client.connection.session, "receive_data", receive_data)


def next_status(client: Client) -> Callable[[str], None]:
    """Wait, up to 10 s, until the client's status was once what the returned function is given."""
    seen: list[str] = []
    changed = threading.Condition()

    @client.connection.on_status
    def note(status: str) -> None:
        with changed:
            seen.append(status)
            changed.notify_all()

    def wait(status: str) -> None:
        with changed:
            assert changed.wait_for(lambda: status in seen, 10), f"{seen} holds no {status}"
            del seen[: seen.index(status) + 1]

    return wait


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ProtocolError("garbage"), RecursionError(), MemoryError()])
def test_error_on_the_connection_is_reported_and_the_client_reconnects(
    line: Line, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = line.client()
    bus = client.bus("votes")
    stream = bus.stream()
    bus.write(1).result(5)
    reported: list[Exception] = []
    client.on_error(reported.append)
    wait = next_status(client)
    fail_once(client, error, monkeypatch)
    ack = bus.write(2)
    wait("reconnecting")
    assert ack.result(10) == 2
    assert stream.take(2, timeout=5) == [1, 2]
    assert client.status == "live"
    if not isinstance(error, ProtocolError):
        assert reported == [error]
        background.finish(5)
        assert "this is a bug in ebus_jupyter" in caplog.text


def test_error_in_the_supervision_itself_does_not_end_the_client(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    class LineOnce:
        """Ends at once."""

        backlog = 0

        def receive(self, timeout: float | None) -> list[bytes]:
            raise ConnectionLost("cut")

        def close(self) -> None: ...
        def abandon(self) -> None: ...
        def send(self, data: bytes) -> None: ...

    made = threading.Event()
    monkeypatch.setattr(driver, "RETRY_SECONDS", (0.0, 0.0))
    socket_driver = driver.SocketDriver(lambda: made.set() or LineOnce())  # type: ignore[arg-type, return-value, func-returns-value]
    client = Client(socket_driver, where="a line that is always cut")
    assert made.wait(5)
    failed = threading.Event()

    def fail(error: BaseException | None) -> None:
        failed.set()
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(client.connection, "disconnected", fail)
        assert failed.wait(5)
    made.clear()
    assert made.wait(5), "it still connects"
    client.close(0)


def test_thread_that_could_not_be_started_is_started_by_the_next_client(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(background, "_running_pid", 0)
    monkeypatch.setattr(background, "_jobs", SimpleQueue())  # the thread that runs already keeps its own
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            line.client()
    line.client()
    done = threading.Event()
    background.later(0, done.set)
    assert done.wait(5)


def test_log_handler_that_waits_for_a_bus_does_not_hold_the_client_up(line: Line) -> None:
    bus = line.client().bus("log")
    entered, refused = threading.Event(), threading.Event()
    outcomes: list[int] = []

    class Ship(logging.Handler):
        """Puts what the program logs on a bus, and waits until it is there."""

        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "program":
                entered.set()
                refused.wait(5)
                outcomes.append(bus.write(record.getMessage()).result(5))

    handler = Ship()
    logging.getLogger().addHandler(handler)
    try:
        program = threading.Thread(target=logging.getLogger("program").warning, args=("hello",))
        program.start()
        assert entered.wait(5)
        bus.write("never seen", expect=99)  # is refused, which is logged
        refused.set()
        program.join(10)
        assert outcomes == [1], "it was on the bus at once"
    finally:
        logging.getLogger().removeHandler(handler)


def test_listener_that_raises_or_sleeps_does_not_hold_the_client_up(line: Line) -> None:
    client = line.client()
    held = threading.Event()

    @client.connection.on_status
    def listener(status: str) -> None:
        if status == "reconnecting":
            held.wait(10)
        raise RuntimeError("a listener's own fault")

    bus = client.bus("votes")
    wait_live = client.wait_live
    line.cut()
    line.mend()
    assert bus.write(1).result(10) == 1
    wait_live(5)
    held.set()


def test_closing_waits_for_the_answers_to_writes(line: Line) -> None:
    client = line.client()
    bus = client.bus("votes", flush_size=1000, flush_interval=60)
    acks = [bus.write(n) for n in range(10)]
    client.close()
    assert [ack.result(0) for ack in acks] == list(range(1, 11))
    with pytest.raises(Closed):
        bus.write(11)


def test_closing_offline_says_how_many_writes_had_no_answer(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    client = line.client()
    bus = client.bus("votes")
    wait = next_status(client)
    line.cut()
    wait("reconnecting")
    ack = bus.write(1)
    client.close(timeout=0.1)
    assert "1 write to the test's broker had no answer" in caplog.text
    with pytest.raises(Closed):
        ack.result(1)


def test_client_is_a_context_manager(line: Line) -> None:
    with line.client() as client:
        ack = client.bus("votes").write(1)
    assert ack.result(0) == 1
    assert client.status == "closed"


@pytest.mark.parametrize("cls", [Unauthenticated, Forbidden])
def test_refusal_by_a_proxy_is_final_only_before_the_first_welcome(line: Line, cls: type[Exception]) -> None:
    ebus = loop_thread()
    refusals: list[Exception] = []

    client = line.client()
    connect = client.connection._driver._connect  # type: ignore[attr-defined]

    async def refused_once() -> Transport:
        if refusals:
            raise refusals.pop()
        transport: Transport = await connect()
        return transport

    behind = Client(LoopDriver(refused_once, ebus.loop, ebus.ident), where="a proxy")
    bus = behind.bus("votes")
    refusals.append(cls("HTTP 401", by_proxy=True))  # type: ignore[call-arg]
    line.cut()
    line.mend()
    assert bus.write(1).result(10) == 1

    refusals.append(cls("HTTP 401", by_proxy=True))  # type: ignore[call-arg]
    first = Client(LoopDriver(refused_once, ebus.loop, ebus.ident), where="a proxy")
    with pytest.raises(cls):
        first.wait_live(5)
    assert first.status == "closed"
    behind.close()


def test_request_to_a_broker_that_never_answers_times_out() -> None:
    ebus = loop_thread()

    async def nobody() -> Transport:
        raise ConnectionLost("nobody is there")

    client = Client(LoopDriver(nobody, ebus.loop, ebus.ident), where="nowhere")
    with pytest.raises(TimeoutError, match="nowhere has not answered"):
        client.buses(timeout=0.1)
    assert client.connection._answers == {}
    client.close()


@pytest.mark.parametrize("rounds", range(6))
def test_transport_that_ends_while_its_sender_wakes_is_replaced(
    line: Line, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Ending] = []

    class Ending:
        """A transport that ends some rounds of the loop after its sender was woken."""

        async def send(self, data: bytes) -> None:
            pass

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for _ in range(8):  # until the sender waits for its deadline
                await asyncio.sleep(0)
            client.connection.wake_sender()
            for _ in range(rounds):
                await asyncio.sleep(0)
            return
            yield b""

        async def aclose(self) -> None:
            pass

    async def connect() -> Transport:
        opened.append(Ending())
        if len(opened) > 2:
            again.set()
        return opened[-1]

    again = threading.Event()
    monkeypatch.setattr(Session, "next_deadline", lambda self: time.monotonic() + 1000)
    client = Client(LoopDriver(connect, line.loop, loop_thread().ident), where="a broken line")
    assert again.wait(10)
    client.close(0)


def test_system_exit_in_a_feed_does_not_end_the_callbacks(line: Line) -> None:
    bus = line.client().bus("votes")
    heard = threading.Event()

    async def source() -> AsyncIterator[int]:
        raise SystemExit
        yield 1

    feed = bus.feed(source())
    with pytest.raises(SystemExit):
        feed.result(5)
    bus.on(lambda _: heard.set())
    bus.write(1)
    assert heard.wait(5)


def test_client_ends_with_its_event_loop(line: Line) -> None:
    clients: list[Client] = []

    async def program() -> None:
        async def connect() -> Transport:
            raise ConnectionLost("nobody is there")

        clients.append(Client(LoopDriver(connect, asyncio.get_running_loop()), where="a loop that ends"))
        await asyncio.sleep(0.01)

    asyncio.run(program())
    assert clients[0].status == "closed"
    assert "event loop" in str(clients[0].why)


def test_welcome_does_not_revive_a_client_that_was_closed(line: Line) -> None:
    client = line.client()
    client.wait_live(5)
    client.close()
    client.connection._perform([events.Welcomed(client.you)])  # type: ignore[list-item, arg-type]
    assert client.status == "closed"
    assert isinstance(client.why, Closed)


@pytest.mark.parametrize("interval", ["soon", float("nan"), -1])
def test_bus_with_a_bad_flush_interval_is_not_opened(line: Line, interval: Any) -> None:
    client = line.client()
    with pytest.raises((TypeError, ValueError), match="flush_interval"):
        client.bus("votes", flush_interval=interval)
    assert [*client.connection.topics] == []
    bus = client.bus("votes")
    with pytest.raises((TypeError, ValueError), match="flush_interval"):
        client.bus("votes", size=1000, flush_interval=interval)
    assert bus.write(1).result(5) == 1


def test_participants_of_a_closed_client_raise_closed(line: Line) -> None:
    client = line.client()
    bus = client.bus("votes")
    client.close()
    with pytest.raises(Closed):
        bus.presence.seats(5)
