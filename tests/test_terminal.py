"""What others have written reaches a terminal, and a log, only as printable text."""

from __future__ import annotations

import doctest
import json
from typing import Any

import msgspec
import pytest

import ebus_jupyter.terminal
from ebus_jupyter.client.bus_table import table
from ebus_jupyter.client.presence import Seat
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import NoSuchBus, from_wire
from ebus_jupyter.terminal import printable, printable_json

ATTACKS = [
    "\x1b[2J\x1b[1;1H",
    "\x1b]0;title\x07",
    "\x9b2J",
    "a\nserver  fake",
    "a\rb",
    "\x7f",
    "\u202egpj.exe",
    "\u2066\u2069",
    "\u200b",
    "\u2028",
    "\ufeff",
    "\U000e0041",
    "\ud800",
]


def is_harmless(text: str) -> bool:
    return all(char.isprintable() for char in text)


def test_examples_hold() -> None:
    assert doctest.testmod(ebus_jupyter.terminal).failed == 0


@pytest.mark.parametrize("attack", ATTACKS, ids=ascii)
def test_control_characters_become_escapes(attack: str) -> None:
    assert is_harmless(printable(f"x{attack}y"))
    assert is_harmless(str(NoSuchBus(f"no bus {attack}")))
    assert is_harmless(str(from_wire("filtered", attack)))
    assert NoSuchBus(attack).text == attack, "what is sent on stays as it is"


@pytest.mark.parametrize("attack", ATTACKS[:-1], ids=ascii)
def test_json_keeps_its_value_and_loses_its_controls(attack: str) -> None:
    data = printable_json(msgspec.json.encode({attack: [attack, "é", "🎉"]}))
    assert is_harmless(data.decode())
    assert json.loads(data) == {attack: [attack, "é", "🎉"]}


@pytest.mark.parametrize("text", ["tea", "Zoë 🎉", "नमस्ते", "می‌خواهم", "👩‍🚀", "a\u00a0b"])
def test_text_of_any_language_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert printable_json(msgspec.json.encode(text)) == msgspec.json.encode(text)


@pytest.mark.parametrize("attack", ATTACKS, ids=ascii)
def test_table_of_buses_has_one_harmless_line_for_each(attack: str) -> None:
    spec: dict[str, Any] = {"type": attack}
    listed = [{"scope": "server", "name": "a", "spec": spec, "participants": 1, "last": None}]
    lines = table(listed).split("\n")
    assert len(lines) == 2
    assert all(map(is_harmless, lines))


@pytest.mark.parametrize("attack", ATTACKS, ids=ascii)
def test_seat_shows_a_harmless_name(attack: str) -> None:
    assert is_harmless(repr(Seat(Participant("1", "page", "bob", attack), "here", 0.0, None, "")))
