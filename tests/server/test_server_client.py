"""`ServerClient`: a client on the server's own loop."""

from __future__ import annotations

import asyncio

import pytest

import ebus_jupyter as ebus

from .room import Room, next_of


@pytest.mark.asyncio
async def test_blocking_calls_raise_on_the_servers_loop(room: Room) -> None:
    server = room.server()
    votes = server.bus("votes", str)  # returns at once
    received = votes.stream()
    assert await votes.write("tea") == 1
    assert await next_of(received) == "tea"
    for blocks in (
        votes.history,
        received.get,
        lambda: votes.write("x").result(1),
        votes.delete,
        server.buses,
    ):
        with pytest.raises(RuntimeError, match="would block the event loop"):
            blocks()
    assert await asyncio.to_thread(votes.history) == ["tea", "x"]


@pytest.mark.asyncio
async def test_opened_raises_the_brokers_refusal(room: Room) -> None:
    server = room.server()
    await server.bus("votes", str).opened()
    other = room.server("other").bus("votes", int)
    with pytest.raises(ebus.SpecConflict):
        await other.opened()


@pytest.mark.asyncio
async def test_state_is_loaded_in_the_server(room: Room) -> None:
    theirs = room.client("alice").state("dash")
    theirs["speed"] = 1
    await theirs.bus.write(1, key="tea")
    ours = await room.server().state("dash").loaded()
    assert dict(ours) == {"speed": 1, "tea": 1}


@pytest.mark.asyncio
async def test_server_opens_any_scope_with_an_owner(room: Room) -> None:
    server, alice = room.server(), room.client("alice")
    with pytest.raises(ebus.Forbidden, match="owner="):
        server.bus("inbox", scope="user")
    inbox = await alice.bus("inbox", scope="user").stream().begun()
    bobs = await room.client("bob").bus("inbox", scope="user").messages().begun()
    await server.bus("inbox", scope="user", owner="alice").write("for you")
    assert await next_of(inbox) == "for you"
    await server.bus("inbox", scope="user", owner="bob").write("and you")
    assert (await next_of(bobs)).value == "and you"
