"""The table: faults × laws, with what was observed while each kind of fault was at work, and what was violated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from . import LAWS

SLOT_SECONDS = 0.1
AFTER_SECONDS = 3.0
"""How long after its end a fault may still show."""


class Table:
    """Counts, added up over any number of runs."""

    def __init__(self) -> None:
        self.faults: Counter[str] = Counter()
        self.observed: Counter[tuple[str, int]] = Counter()
        self.violated: Counter[tuple[str, int]] = Counter()
        self.total: Counter[int] = Counter()
        self.violations: list[str] = []
        self.broken: list[str] = []  # runs that the suite itself could not bring to an end

    def add(self, faults: Iterable[dict[str, Any]]) -> Clock:
        """Begin another run with these faults."""
        clock = Clock(self)
        for fault in faults:
            self.faults[fault["kind"]] += 1
            clock.add(fault)
        return clock

    def __str__(self) -> str:
        kinds = sorted(self.faults, key=lambda kind: (-self.faults[kind], kind))
        width = max([len(kind) for kind in kinds] + [len("fault"), len("all")])
        head = f"{'fault':<{width}}  {'times':>6}  " + "  ".join(f"{f'law {law}':>11}" for law in LAWS)
        rows = [head, "-" * len(head)]
        for kind in kinds:
            cells = [self._cell(self.observed[kind, law], self.violated[kind, law]) for law in LAWS]
            rows.append(f"{kind:<{width}}  {self.faults[kind]:>6}  " + "  ".join(f"{cell:>11}" for cell in cells))
        rows.append("-" * len(head))
        violated = Counter(int(text.split(":", 1)[0].removeprefix("law ")) for text in self.violations)
        totals = [self._cell(self.total[law], violated[law]) for law in LAWS]
        count = sum(self.faults.values())
        rows.append(f"{'all':<{width}}  {count:>6}  " + "  ".join(f"{cell:>11}" for cell in totals))
        rows += ["", "Cells: what was checked while the fault was at work; !n: violations. Laws: " + self._laws()]
        return "\n".join(rows)

    @staticmethod
    def _cell(observed: int, violated: int) -> str:
        return f"{observed:,}" + (f" !{violated}" if violated else "")

    @staticmethod
    def _laws() -> str:
        return "; ".join(f"{law} {text}" for law, text in LAWS.items()) + "."


class Clock:
    """Which faults were at work when, and on whom."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._kinds: dict[tuple[str, int], set[str]] = {}

    def add(self, fault: dict[str, Any]) -> None:
        first, last = int(fault["t"] / SLOT_SECONDS), int((fault["until"] + AFTER_SECONDS) / SLOT_SECONDS)
        for slot in range(first, last + 1):
            self._kinds.setdefault((fault.get("on") or "", slot), set()).add(fault["kind"])

    def _at_work(self, who: str, t: float) -> set[str]:
        slot = int(t / SLOT_SECONDS)
        everyone, mine = self._kinds.get(("", slot)), self._kinds.get((who, slot))
        return (everyone or set()) | (mine or set())

    def observe(self, laws: Iterable[int], who: str, t: float) -> None:
        """Something that these laws say something about was seen, and looked at."""
        at_work = self._at_work(who, t)
        for law in laws:
            self._table.total[law] += 1
            for kind in at_work:
                self._table.observed[kind, law] += 1

    def violate(self, law: int, who: str, t: float, text: str) -> None:
        """A law was violated."""
        at_work = self._at_work(who, t)
        for kind in at_work:
            self._table.violated[kind, law] += 1
        self._table.violations.append(
            f"law {law}: at {t:.3f}, {who}: {text} [{', '.join(sorted(at_work)) or 'no fault'}]"
        )
