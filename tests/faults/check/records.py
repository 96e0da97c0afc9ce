"""Records: what each participant wrote, was answered, and received, as lines of JSON that a killed process leaves whole.

Every line has ``is`` (its kind) and ``t`` (`time.monotonic`, which all processes of a machine share). A participant's file
begins with `me`. What a line of each kind has is what `Recorder`'s callers pass; `World` is all of it, read back.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Recorder:
    """Writes one file. Safe to use from several threads; a line is with the system before the call returns."""

    def __init__(self, path: Path | str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()

    def __call__(self, is_: str, /, **facts: Any) -> None:
        self.line({"is": is_, "t": time.monotonic(), **facts})

    def line(self, facts: dict[str, Any]) -> None:
        """Write a line as it is."""
        line = json.dumps(facts, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            os.write(self._file, line)


@dataclass
class Write:
    """A write, from its writer's record. ``answers`` has what it was told, in order."""

    writer: str
    n: int
    bus: str
    t: float
    key: str | None = None
    deleted: bool = False
    to: list[str] | None = None
    echo: bool = True
    answers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        return any(answer["is"] == "refused" for answer in self.answers)

    def visible_to(self, name: str, user: str) -> bool:
        if self.writer == name:
            return self.echo
        return self.to is None or user in self.to


@dataclass
class Reader:
    """One way through one bus: `events` are its `heard`, `lagged`, `closed`, `left` and `end`, in order."""

    who: Who
    bus: str
    since: Any
    t: float
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Who:
    """A participant: what it authenticated as, and the id that it was told it has."""

    name: str
    user: str
    kind: str
    id: str = ""
    killed: bool = False  # by the injector: its record may end anywhere
    readers: dict[Any, Reader] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class BusFacts:
    """A bus, as the injector knows it. ``complete``: its whole log was fetched at the end of each of its histories."""

    name: str
    retain: str = "log"
    complete: bool = False
    users: list[str] | None = None
    mark: str = ""  # what its filter adds to each value


@dataclass
class World:
    """All records of one run."""

    who: dict[str, Who] = field(default_factory=dict)
    buses: dict[str, BusFacts] = field(default_factory=dict)
    writes: dict[tuple[str, int], Write] = field(default_factory=dict)
    audits: list[dict[str, Any]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    sizes: list[dict[str, Any]] = field(default_factory=list)


def read_file(path: Path) -> list[dict[str, Any]]:
    """The lines of a record. A last line that is not whole was cut off by a kill."""
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]


def load(folder: Path) -> World:
    """Read every record in ``folder``."""
    return world_of([read_file(path) for path in sorted(folder.glob("*.jsonl"))])


def world_of(files: list[list[dict[str, Any]]]) -> World:
    """The world that these records tell of."""
    world = World()
    answers: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    killed: set[str] = set()
    for lines in files:
        me: Who | None = None
        for line in lines:
            match line["is"]:
                case "me":
                    me = world.who.setdefault(line["name"], Who(line["name"], line["user"], line["kind"]))
                    me.id = line.get("id") or me.id
                case "bus":
                    world.buses[line["name"]] = BusFacts(
                        **{k: line[k] for k in ("name", "retain", "complete", "users", "mark") if k in line}
                    )
                case "history":
                    world.audits.append(line)
                case "fault":
                    world.faults.append(line)
                case "size":
                    world.sizes.append(line)
                case "killed":
                    killed.add(line["name"])
                case _ if me is None:
                    raise ValueError(f"a record begins with {line}")
                case "write":
                    facts = {k: line[k] for k in ("bus", "t", "key", "deleted", "to", "echo") if k in line}
                    world.writes[me.name, line["n"]] = Write(me.name, line["n"], **facts)
                case "ack" | "refused" | "unknown":
                    answers[me.name, line["n"]].append(line)
                case "reader":
                    me.readers[line["r"]] = Reader(me, line["bus"], line.get("since"), line["t"])
                case "heard" | "lagged" | "closed" | "left" | "end":
                    me.readers[line["r"]].events.append(line)
                case "error":
                    me.errors.append(line)
                case other:
                    raise ValueError(f"no record has lines of the kind {other!r}")
    for key, found in answers.items():
        if key in world.writes:  # an interrupt may have come before the record of the write
            world.writes[key].answers = found
    for name in killed:
        if name in world.who:
            world.who[name].killed = True
    return world
