"""A wrong argument is an error of its own call, which names the parameter, and hurts nothing else."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from decimal import Decimal
from enum import IntEnum
from typing import Any

import numpy as np
import pytest

import ebus_jupyter as ebus
from ebus_jupyter.client.arguments import beginning, flag, seconds, text, texts, whole
from ebus_jupyter.client.bus import Bus
from ebus_jupyter.client.state import State

from .conftest import Line


class Text(str):
    pass


class Whole(IntEnum):
    THREE = 3


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("has no repr")

    def __index__(self) -> int:
        raise RuntimeError("has no index")


ODD: list[Any] = [
    True,
    1.5,
    math.nan,
    math.inf,
    1 << 70,
    -(1 << 70),
    "\ud800",
    b"x",
    [1],
    [None],
    {1: 2},
    1j,
    Decimal("1.5"),
    np.float64(1.5),
    np.arange(3),
    object(),
    Unshowable(),
    Whole.THREE,
    ...,
]

BUS: dict[str, Callable[[Bus[Any, Any], Any], object]] = {
    "key": lambda bus, odd: bus.write(1, key=odd),
    "echo": lambda bus, odd: bus.write(1, echo=odd),
    "to": lambda bus, odd: bus.write(1, to=odd),
    "expect": lambda bus, odd: bus.write(1, expect=odd).result(5),
    "wait": lambda bus, odd: bus.write(1, wait=odd),
    "remove": lambda bus, odd: bus.remove(odd),
    "remove_expect": lambda bus, odd: bus.remove("k", expect=odd).result(5),
    "source": lambda bus, odd: bus.feed(odd),
    "since": lambda bus, odd: bus.stream(odd).take_kept(5),
    "messages": lambda bus, odd: bus.messages(odd).take_kept(5),
    "epoch": lambda bus, odd: bus.stream(ebus.Position(odd, 1)),
    "offset": lambda bus, odd: bus.stream(ebus.Position(bus.epoch, odd)).take_kept(5),
    "id": lambda bus, odd: bus.stream(ebus.Position(bus.epoch, 1, odd)),
    "n": lambda bus, odd: bus.history(odd),
    "take": lambda bus, odd: bus.stream("start").take(odd, 0),
    "timeout": lambda bus, odd: bus.stream("start").get(odd),
    "callback": lambda bus, odd: bus.on(odd),
    "presence": lambda bus, odd: bus.presence.on_change(odd),
}
"""Calls of a bus with one argument that may be wrong."""

STATE: dict[str, Callable[[State[Any], Any], object]] = {
    "set": lambda state, odd: state.__setitem__(odd, 1),
    "delete": lambda state, odd: state.pop(odd, None),
    "get": lambda state, odd: state.get(odd),
    "replace": lambda state, odd: state.replace(odd, 1, 2),
    "timeout": lambda state, odd: state.flush(odd),
    "listener": lambda state, odd: state.on_change(odd),
}

ERRORS = (TypeError, ValueError, TimeoutError, ebus.EbusError)


def tries(call: Callable[[], object]) -> None:
    with contextlib.suppress(*ERRORS):
        call()


@pytest.mark.parametrize("name", BUS)
def test_odd_argument_of_a_bus_leaves_the_client_as_it_was(line: Line, name: str) -> None:
    client = line.client()
    client.wait_live(5)
    bus = client.bus("votes", retain="keys")
    bus.write(1, key="k").result(5)
    welcomes: list[str] = []
    client.on_status(welcomes.append)
    for odd in ODD:
        tries(lambda odd=odd: BUS[name](bus, odd))
    assert bus.write(2, key="k").result(5) > 1
    assert (client.status, welcomes, client.why) == ("live", [], None)


@pytest.mark.parametrize("name", STATE)
def test_odd_argument_of_a_state_leaves_the_client_as_it_was(line: Line, name: str) -> None:
    client = line.client()
    state = client.state("votes")
    welcomes: list[str] = []
    client.on_status(welcomes.append)
    for odd in ODD:
        tries(lambda odd=odd: STATE[name](state, odd))
    state["k"] = 2
    state.flush(5)
    assert (client.status, welcomes, client.why) == ("live", [], None)


@pytest.mark.parametrize(
    "option",
    [
        "name",
        "scope",
        "size",
        "retain",
        "filter",
        "readers",
        "writers",
        "flush_size",
        "flush_interval",
        "timeout",
        "create",
    ],
)
def test_odd_option_of_a_bus_is_an_error_that_names_it(line: Line, option: str) -> None:
    client = line.client()
    client.wait_live(5)
    for odd in (object(), b"x", 1j, Unshowable(), math.nan):
        with pytest.raises((TypeError, ValueError), match="name a bus" if option == "name" else option):
            client.bus(**{"name": "votes", option: odd})
    assert [*client.connection.topics] == []
    assert client.bus("votes").write(1).result(5) == 1


@pytest.mark.parametrize(
    ("call", "parameter"),
    [
        (lambda bus: bus.write(1, key=5), "key"),
        (lambda bus: bus.write(1, echo="no"), "echo"),
        (lambda bus: bus.write(1, wait=1), "wait"),
        (lambda bus: bus.write(1, to=5), "to"),
        (lambda bus: bus.write(1, to=["ann", 5]), "to"),
        (lambda bus: bus.write(1, expect="3"), "expect"),
        (lambda bus: bus.write(1, expect=-1), "expect"),
        (lambda bus: bus.write(1, key="\ud800"), "key"),
        (lambda bus: bus.remove(None), "key"),
        (lambda bus: bus.stream(1.5), "since"),
        (lambda bus: bus.stream("begin"), "Position.parse"),
        (lambda bus: bus.history("3"), "n must"),
        (lambda bus: bus.stream().take(1.5), "n must"),
        (lambda bus: bus.stream().get("5"), "timeout"),
        (lambda bus: bus.stream().get(math.nan), "timeout"),
        (lambda bus: bus.feed([1, 2]), "source"),
        (lambda bus: bus.on(print()), "callback"),
        (lambda bus: bus.client.on_error(5), "listener"),
        (lambda bus: bus.client.on_status(5), "listener"),
        (lambda bus: bus.client.flush("5"), "timeout"),
        (lambda bus: bus.client.close("5"), "timeout"),
        (lambda bus: bus.presence.on_change(None), "callback"),
        (lambda bus: ebus.connect("127.0.0.1:8888", "t"), "url"),
        (lambda bus: ebus.connect(5, "t"), "url"),
        (lambda bus: ebus.connect("http://127.0.0.1/", None), "token"),
        (lambda bus: ebus.connect("http://127.0.0.1/", "a\r\nX-Other: b"), "token"),
    ],
)
def test_error_of_a_wrong_argument_names_the_parameter(
    line: Line, call: Callable[[Any], object], parameter: str
) -> None:
    bus = line.client().bus("votes")
    with pytest.raises((TypeError, ValueError), match=parameter):
        call(bus)
    assert bus.write(1).result(5) == 1


def test_text_of_an_argument_may_be_of_a_subclass(line: Line) -> None:
    client = line.client()
    keys = client.bus(Text("keys"), scope=Text("server"), retain=Text("keys"), writers=Text("alice"))  # type: ignore[call-overload]
    assert keys.spec.writers == ("alice",)
    assert keys.write(1, key=np.str_("k"), expect=np.int64(0)).result(5) == 1
    bus = client.bus(np.str_("votes"))
    assert bus.write(1, to=(Text("alice"),)).result(5) == 1  # type: ignore[arg-type]
    assert bus.history(np.int64(5)) == [1]  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 10**400, 1 << 70, None])
def test_time_without_end_is_no_limit(line: Line, timeout: Any) -> None:
    bus = line.client().bus("votes")
    bus.write(1)
    assert bus.stream("start").get(timeout) == 1


def test_arguments_come_out_as_plain_values() -> None:
    assert (whole(np.int64(3), "n"), whole(Whole.THREE, "n")) == (3, 3)
    assert type(text(np.str_("x"), "key")) is str
    assert texts(("a", Text("b")), "to") == ["a", "b"]
    assert (seconds(None), seconds(-(10**400)), seconds(Decimal("1.5"))) == (math.inf, -math.inf, 1.5)
    assert flag(np.bool_(True), "echo") is True
    assert beginning(np.int64(-3)) == -3
    assert beginning(ebus.Position("a1", np.int64(3))) == ebus.Position("a1", 3)  # type: ignore[arg-type]
