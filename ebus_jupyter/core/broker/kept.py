"""A bus as a backend keeps it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ebus_jupyter.core.protocol.message import BusSpec, Id

from .answers import KeptAnswers, runs_of
from .entry import Entry, Run


class Kept(msgspec.Struct):
    """A bus as a backend keeps it.

    Attributes:
        spec: The bus's specification.
        epoch: Identifies this history of the bus; never empty. A bus that is deleted and made again has another one.
        last: The last offset assigned; 0 where there is none. It may be greater than that of the last entry.
        floor: The last offset that was dropped to stay within the bus's bound; 0 where none was.
        entries: The retained entries after offset ``start``, in the order of offsets. Of a log that can be read later, these
            are the newest ones.
        answers: The accepted writes of each client, retained or not, except the most recent ones. With these a retry is
            answered with its first offset even after a restart.
        recent: The writes accepted since, in the order of offsets.
        start: The offset after which `entries` are whole.
    """

    spec: BusSpec
    epoch: str
    last: int = 0
    floor: int = 0
    entries: list[Entry] = []
    answers: list[KeptAnswers] = []
    recent: list[Run] = []
    start: int = 0

    def ids(self) -> Iterator[tuple[Id, int]]:
        """Each write that is remembered, with its offset."""
        for run in (*runs_of(self.answers), *self.recent):
            for i in range(run.length):
                yield (run.sender, run.id + i), run.offset + i
