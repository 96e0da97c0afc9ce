"""Reads the scenarios of `tests/vectors` strictly: a field that no code reads is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Participant

FOLDER = Path(__file__).parent.parent / "vectors"
FILES = sorted(path.stem for path in FOLDER.glob("*.json"))


class Fields(dict[str, Any]):
    """An object of a scenario. Reading a field removes it."""

    def take(self, name: str, default: Any = ...) -> Any:
        if default is ... and name not in self:
            raise AssertionError(f"{name} is missing in {dict(self)}")
        return self.pop(name, default)


@contextmanager
def fields(given: dict[str, Any]) -> Iterator[Fields]:
    """The fields of ``given``, all of which must be read within."""
    found = Fields(given)
    yield found
    assert not found, f"unknown fields {sorted(found)} of {given}"


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert found["cases"], f"{name}.json has no scenario"
    names = [case["name"] for case in found["cases"]]
    assert len(names) == len(set(names)), f"two scenarios of {name}.json have the same name"
    return found


def step_of(step: dict[str, Any]) -> tuple[str, Any, Fields]:
    """The verb of a step, the verb's value, and the other fields."""
    (verb, what), *rest = step.items()
    return verb, what, Fields(rest)


# --- frames ---------------------------------------------------------------------------------------------------------

BY_NAME: dict[str, type[frames.Frame]] = {}
for _type in frames.Frame.__subclasses__():
    _snake = "".join("_" * (n > 0 and c.isupper()) + c.lower() for n, c in enumerate(_type.__name__))
    BY_NAME[_snake] = _type


def frame_of(named: dict[str, Any], people: dict[str, Any] | None = None) -> Any:
    """The frame for a frame of a scenario."""
    ((name, given),) = named.items()
    return BY_NAME[name](**{field: _into(name, field, value, people) for field, value in given.items()})


def _into(frame: str, field: str, value: Any, people: dict[str, Any] | None) -> Any:
    if field in ("sender", "you"):
        return person(value, people)
    if field == "value" or (frame, field) == ("set_presence", "state"):
        return msgspec.Raw(msgspec.msgpack.encode(value))
    if (frame, field) == ("presence", "here"):
        seats = [[person(seat["who"], people), *[seat[part] for part in SEAT[1:]]] for seat in value]
        return [msgspec.Raw(msgspec.msgpack.encode(seat)) for seat in seats]
    if (frame, field) == ("page", "messages"):
        return [msgspec.Raw(frames.encode(frame_of({"delivery": each}, people))) for each in value]
    return value


SEAT = ["who", "status", "since", "state", "activity"]


def person(given: Any, people: dict[str, Any] | None = None) -> Participant:
    """A participant, given by all fields or by a name from ``people``."""
    return Participant(**(people or {})[given] if isinstance(given, str) else given)


def described(frame: Any) -> dict[str, Any]:
    """A frame as scenarios name it, with all fields."""
    name = next(name for name, type_ in BY_NAME.items() if type_ is type(frame))
    return {name: {field: _from(name, field, getattr(frame, field)) for field in frame.__struct_fields__}}


def _from(frame: str, field: str, value: Any) -> Any:
    if isinstance(value, Participant):
        return public(value)
    if isinstance(value, msgspec.Raw):
        return msgspec.msgpack.decode(value)
    if (frame, field) == ("presence", "here"):
        seats = [msgspec.msgpack.decode(raw, type=tuple[Participant, str, float, Any, str]) for raw in value]
        return [dict(zip(SEAT, [public(seat[0]), *seat[1:]], strict=True)) for seat in seats]
    if (frame, field) == ("page", "messages"):
        return [described(frames.delivery(raw))["delivery"] for raw in value]
    return value


def public(who: Participant) -> dict[str, Any]:
    return {field: getattr(who, field) for field in who.__struct_fields__ if field not in ("groups", "anonymous")}
