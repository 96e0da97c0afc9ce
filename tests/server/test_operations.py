"""What who operates a server can see of its buses: metrics and health."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import ebus_jupyter as ebus
from ebus_jupyter.broker.host import Broker
from ebus_jupyter.client.client import Client
from ebus_jupyter.server.metrics import METRICS

from .harness import Server
from .room import Room
from .wire import Refused, Wire

Sample = tuple[str, tuple[str, ...]]


def samples(text: str) -> dict[Sample, float]:
    """The samples of our metrics, by name and labels. Each is there once."""
    found = [
        ((sample.name, tuple(sample.labels.values())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("ebus_")
    ]
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


def scrape(server: Server) -> dict[Sample, float]:
    return samples(server.request("GET", "metrics", "alice").good().body.decode())


def test_metrics_count_what_the_broker_did(server: Server, client_of: Callable[[str], Client], name: str) -> None:
    alice, bob = client_of("alice"), client_of("bob")
    bus = alice.bus(name, int)
    stream = bob.bus(name, int).stream()
    before = scrape(server)
    for n in range(10):
        bus.write(n).result(10)
    assert stream.take(10, timeout=10) == [*range(10)]
    with pytest.raises(ebus.SpecConflict):
        bob.bus(name, str)
    after = scrape(server)
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    assert after["ebus_connections", ("client",)] >= 2
    assert after["ebus_buses", ()] >= 1
    assert after["ebus_subscriptions", ()] >= 1
    assert grown["ebus_writes_total", ()] == 10
    assert grown["ebus_refusals_total", ("spec_conflict",)] == 1
    assert grown["ebus_commit_seconds_count", ()] <= 10
    assert grown["ebus_commit_seconds_sum", ()] > 0
    assert grown["ebus_receive_seconds_count", ()] >= 10
    assert grown["ebus_delivery_seconds_count", ()] >= 10
    assert grown["ebus_received_bytes_total", ()] >= 10 * 5
    assert grown["ebus_sent_bytes_total", ()] >= 2 * 10 * 5
    for what in ("commit", "receive", "delivery"):
        assert 0 < after[f"ebus_{what}_seconds_max", ()] <= after[f"ebus_{what}_seconds_sum", ()]


def test_metrics_of_two_brokers_in_a_process_are_added_up() -> None:
    async def story() -> None:
        async with Room() as one, Room() as two:
            METRICS.add(one.broker)
            METRICS.add(two.broker)
            try:
                for room in (one, two):
                    await room.client("alice").bus("votes").write(1)
                assert samples(generate_latest().decode())["ebus_writes_total", ()] == 2
                METRICS.remove(one.broker)
                METRICS.remove(one.broker)
                assert samples(generate_latest().decode())["ebus_writes_total", ()] == 1
            finally:
                METRICS.remove(one.broker)
                METRICS.remove(two.broker)
            assert not samples(generate_latest().decode())

    asyncio.run(story())


def test_log_lines_have_an_event_and_fields(server: Server) -> None:
    with pytest.raises(Refused):
        Wire(server, auth="token wrong")
    assert server.request("GET", "ebus/api/buses/server/nowhere/messages", "alice").status == 404
    log = server.output()
    assert "ebus: connection_refused ip=127.0.0.1 code=unauthenticated: " in log
    path = "/deep/er/ebus/api/buses/server/nowhere/messages"
    assert f"ebus: request_refused ip=127.0.0.1 path={path} code=no_such_bus: " in log


def test_health_is_public_and_its_reasons_are_not(server: Server) -> None:
    assert server.request("GET", "ebus/api/health").good().json() == {"status": "ok"}
    assert server.request("GET", "ebus/api/health", "mallory").good().json() == {"status": "ok"}
    known = server.request("GET", "ebus/api/health", "carol").good()
    assert known.json() == {"status": "ok", "broker": "running", "storage": "writable"}


BROKEN_DISK = """
from ebus_jupyter.backends.memory import MemoryBackend
from ebus_jupyter.errors import BackendError

class Disk(MemoryBackend):
    '''Refuses large values, as a disk that is almost full does.'''

    def append_now(self, batch):
        if any(len(entry.value) > 100 for entry in batch):
            raise BackendError("/var/ebus.sqlite: the disk is full.")
        return super().append_now(batch)

    async def append(self, batch):
        return self.append_now(batch)
"""


def test_health_fails_until_a_commit_succeeds(tmp_path: Path) -> None:
    (tmp_path / "broken_disk.py").write_text(BROKEN_DISK)
    config = "c.EBus.backend = 'broken_disk.Disk'\n"
    with (
        Server(tmp_path / "server", config=config, env={"PYTHONPATH": str(tmp_path)}) as server,
        ebus.connect(server.url, server.token("alice")) as client,
    ):
        bus = client.bus("votes")
        with pytest.raises(ebus.BackendError):
            bus.write("x" * 200).result(10)
        failing = server.request("GET", "ebus/api/health")
        assert (failing.status, failing.json()) == (503, {"status": "failing"})
        assert "disk is full" in server.request("GET", "ebus/api/health", "alice").json()["storage"]
        bus.write("x").result(10)
        assert server.request("GET", "ebus/api/health").good().json() == {"status": "ok"}


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_writes_are_neither_lost_nor_doubled_by_a_server_that_is_stopped(tmp_path: Path, synchronous: str) -> None:
    config = f"c.EBus.synchronous = {synchronous!r}\n"
    with (
        Server(tmp_path / "server", config=config) as server,
        ebus.connect(server.url, server.token("alice")) as alice,
        ebus.connect(server.url, server.token("bob")) as bob,
    ):
        bus = alice.bus("votes", int, size=10_000)
        heard = bob.bus("votes", int).stream(since="start")
        acks = [bus.write(n) for n in range(1500)]
        server.stop()  # SIGTERM, amid them
        acks += [bus.write(n) for n in range(1500, 2000)]
        server.start()
        offsets = [ack.result(30) for ack in acks]
        assert sorted(set(offsets)) == offsets
        assert heard.take(2000, timeout=30) == [*range(2000)]
        assert bus.history(10_000) == [*range(2000)]


def test_broker_is_running_from_start_to_end() -> None:
    async def story() -> None:
        broker = Broker()
        assert not broker.is_running
        await broker.start()
        assert broker.is_running
        await broker.aclose()
        assert not broker.is_running

    asyncio.run(story())
