"""Histories: the order of each bus, from one change of its storage to the next.

A server that is killed goes on with the same history. One that finds an older copy of its file, or no file, begins another:
what was written in between may be gone, and everybody must be told. The injector fetches the logs of the *complete* buses
at each end of a history (with a client of its own, see `tests.faults.raw`); of the other buses a history is all that anyone
has seen of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .records import World


@dataclass(frozen=True)
class Seen:
    """A message, as anyone sees it."""

    writer: str
    n: int
    id: str
    key: str | None = None
    deleted: bool = False

    def same(self, other: Seen) -> bool:
        """Whether both may be the same message. An ack knows no id, and a removal has no value to know it by."""
        if self.id and other.id:
            return self.id == other.id
        if self.deleted or other.deleted:
            return (self.deleted, self.key) == (other.deleted, other.key)
        return (self.writer, self.n) == (other.writer, other.n)


@dataclass
class History:
    """One history of one bus: what is at each offset."""

    bus: str
    begin: float
    end: float = float("inf")
    complete: bool = False
    resumes: int | None = None  # the number of the history that it goes on with, where that is known
    base: dict[int, Seen] = field(default_factory=dict)
    entries: dict[int, Seen] = field(default_factory=dict)
    raw: list[dict[str, Any]] = field(default_factory=list)  # the entries, as they were fetched

    def agrees(self, found: list[tuple[int, Seen]]) -> bool:
        """Whether these messages may be of this history."""
        return all(offset not in self.entries or self.entries[offset].same(seen) for offset, seen in found)

    def overlap(self, found: list[tuple[int, Seen]]) -> int:
        return sum(offset in self.entries for offset, _ in found)


def seen_of(line: dict[str, Any]) -> Seen:
    """The message that a line tells of. Its value is ``[writer, n, …]``; a removal has none, and is told by its id alone."""
    value = line["v"] if isinstance(line["v"], list) and len(line["v"]) > 1 else ["", 0]
    return Seen(str(value[0]), int(value[1]), line["id"], line.get("key"), line.get("deleted", False))


def entries_of(lines: list[dict[str, Any]]) -> dict[int, Seen]:
    return {line["o"]: seen_of(line) for line in lines}


def histories_of(world: World, begin: float) -> dict[str, list[History]]:
    """The histories of each bus, in order, as far as the injector knows them."""
    found: dict[str, list[History]] = {name: [History(name, begin)] for name in world.buses}
    for audit in sorted(world.audits, key=lambda line: float(line["t"])):
        of_bus = found[audit["bus"]]
        if audit["phase"] == "begin":
            of_bus[-1].end = min(of_bus[-1].end, audit.get("until", audit["t"]))
            fresh = History(audit["bus"], audit["t"], base=entries_of(audit["entries"]), resumes=audit.get("resumes"))
            fresh.entries = dict(fresh.base)
            of_bus.append(fresh)
        else:
            current = of_bus[-1]
            current.end = audit["t"]
            if world.buses[audit["bus"]].complete:
                current.complete, current.raw = True, audit["entries"]
                current.entries = entries_of(audit["entries"])
    return found
