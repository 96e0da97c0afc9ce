"""What a type checker and an editor infer of the public API; checked by `test_typing`, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypedDict, assert_type

import ipywidgets
import msgspec
import numpy as np
import numpy.typing as npt

import ebus_jupyter as ebus
from ebus_jupyter import recording


@dataclass
class Vote:
    choice: str
    weight: float = 1.0


class Post(msgspec.Struct):
    text: str
    by: str


class Place(TypedDict):
    x: float


def stamp(text: str, sender: ebus.Participant) -> Post:
    return Post(text, sender.user)


async def buses() -> None:
    votes = ebus.bus("votes", Vote)
    assert_type(votes, ebus.Bus[Vote, Vote])
    assert_type(ebus.bus("votes", type=Vote, scope="user", size=10), ebus.Bus[Vote, Vote])
    assert_type(ebus.bus(type=int), ebus.Bus[int, int])
    assert_type(ebus.bus("speed", dict[str, int], retain="latest"), ebus.Bus[dict[str, int], dict[str, int]])
    assert_type(ebus.bus("place", Place), ebus.Bus[Place, Place])
    assert_type(ebus.bus("clean", str, emits=Post, filter=stamp), ebus.Bus[str, Post])
    assert_type(ebus.bus("anything"), ebus.Bus[Any, Any])
    assert_type(ebus.bus("anything", size=10), ebus.Bus[Any, Any])
    assert_type(ebus.bus(), ebus.Bus[Any, Any])
    assert_type(votes.clone(), ebus.Bus[Vote, Vote])
    assert_type(await votes.opened(), ebus.Bus[Vote, Vote])

    ebus.bus("maybe", int | None)
    ebus.bus("array", npt.NDArray[np.float32])  # not for all numpy versions a type of its own: there Bus[Any, Any]
    ebus.bus("anything", Any)
    ebus.bus("votes", Vote, sise=10)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    ebus.bus("votes", Vote, retain="all")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def writing() -> None:
    votes = ebus.bus("votes", Vote)
    ack = votes.write(Vote("tea"), echo=False, to=["bob"], expect=3)
    assert_type(ack, ebus.Ack)
    assert_type(await ack, int)
    assert_type(ack.result(timeout=5), int)
    assert_type(ack.error, ebus.EbusError | None)
    votes.write("tea")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    async def readings() -> AsyncIterator[Vote]:
        yield Vote("tea")

    assert_type(votes.feed(readings()).result(), int)


async def reading() -> None:
    clean = ebus.bus("clean", str, emits=Post, filter=stamp)
    stream = clean.stream(since="start")
    assert_type(stream, ebus.Stream[Post])
    assert_type(stream.get(timeout=5), Post)
    assert_type(stream.get_nowait(), Post)
    assert_type(stream.take(3), list[Post])
    assert_type(stream.clone(), ebus.Stream[Post])
    assert_type(await stream.begun(), ebus.Stream[Post])
    assert_type(clean.history(10), list[Post])
    for post in stream:
        assert_type(post, Post)
    async for message in clean.messages(since=-3):
        assert_type(message, ebus.Message[Post])
        assert_type(message.value, Post)
        assert_type(message.offset, int)
        assert_type(message.sender, ebus.Participant)


def callbacks() -> None:
    votes = ebus.bus("votes", Vote)

    @votes.on
    def tally(vote: Vote) -> str:
        return vote.choice

    @votes.on_message
    async def log(message: ebus.Message[Vote]) -> None: ...

    assert_type(tally(Vote("tea")), str)
    votes.off(tally)


def states() -> None:
    dash = ebus.state("dash", Vote, scope="user", size=10)
    assert_type(dash, ebus.State[Vote])
    assert_type(dash["x"], Vote)
    assert_type(dash.get("x"), Vote | None)
    assert_type(list(dash), list[str])
    assert_type(dash.bus, ebus.Bus[Vote, Vote])
    assert_type(dash.clone(), ebus.State[Vote])
    assert_type(ebus.state("anything"), ebus.State[Any])
    assert_type(ebus.state("anything", size=5), ebus.State[Any])
    dash["x"] = 1  # type: ignore[assignment]  # pyright: ignore[reportArgumentType]

    @dash.on_change
    def changed(change: Any) -> int:
        return len(change.key)

    assert_type(changed(None), int)


def clients() -> None:
    client = ebus.connect("http://127.0.0.1:8888/", "token")
    assert_type(client, ebus.Client)
    assert_type(client.bus("votes", Vote), ebus.Bus[Vote, Vote])
    assert_type(client.bus("clean", str, emits=Post), ebus.Bus[str, Post])
    assert_type(client.bus("notes", owner="alice", scope="user", create=False), ebus.Bus[Any, Any])
    assert_type(client.state("dash", int), ebus.State[int])
    assert_type(client.you, ebus.Participant | None)
    assert_type(recording.record(client.bus("votes"), "votes.jsonl", n=3), int)


def widgets() -> None:
    slider = ipywidgets.FloatSlider()
    assert_type(ebus.share(slider, "speed"), ipywidgets.FloatSlider)
    assert_type(ebus.link((slider, "value"), ebus.state("dash", float), "speed"), ipywidgets.FloatSlider)
    assert_type(ebus.unshare(slider), ipywidgets.FloatSlider)
