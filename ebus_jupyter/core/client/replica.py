"""One participant's copy of a shared state: a mapping that the server orders and everyone ends up agreeing on.

The last write of a key, in the server's order, wins. What this participant writes shows here at once; until it has its
place in the order, other people's writes of that key are noted but not shown, for they may come before or after it. Then
the latest of them all is shown. So a slider being dragged never jumps back, and everybody ends with the same value.

While a write of a key is on its way, a newer one waits, and replaces one that waits already: a drag at 60 Hz over a slow
line sends what the line takes, and the last value always.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING", "__bool__": lambda self: False})()
"""The value of a key that is not there."""


class Change(NamedTuple):
    """What is shown for ``key`` has changed, from ``old`` to ``new`` (`MISSING`: not there); ``local``: by this participant."""

    key: str
    old: Any
    new: Any
    local: bool


class _Mine:
    __slots__ = ("next", "sent")

    def __init__(self, sent: Any) -> None:
        self.sent = sent
        self.next: Any = _NOTHING


_NOTHING = object()


class Replica:
    """A copy of one state. Values are opaque; `MISSING` stands for a removed key."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Any]] = {}
        self._mine: dict[str, _Mine] = {}
        self._stale: set[str] = set()

    def shown(self, key: str) -> Any:
        """What this participant sees; `MISSING` where there is nothing."""
        mine = self._mine.get(key)
        if mine is not None:
            return mine.sent if mine.next is _NOTHING else mine.next
        return self._known.get(key, (0, MISSING))[1]

    def offset(self, key: str) -> int:
        """The offset of the value that the server is known to have; 0 where it has none."""
        offset, value = self._known.get(key, (0, MISSING))
        return 0 if value is MISSING else offset

    @property
    def busy(self) -> bool:
        """Whether a write of this participant has no answer yet."""
        return bool(self._mine)

    def keys(self) -> Iterator[str]:
        return (key for key in dict.fromkeys([*self._known, *self._mine]) if self.shown(key) is not MISSING)

    def write(self, key: str, value: Any) -> tuple[Change, bool]:
        """Write here; the second item says whether to send it now (else `acked` will say so)."""
        old = self.shown(key)
        mine = self._mine.get(key)
        if mine is None:
            self._mine[key] = _Mine(value)
        else:
            mine.next = value
        return Change(key, old, value, local=True), mine is None

    def acked(self, key: str, offset: int, *, accepted: bool) -> tuple[list[Change], bool]:
        """The write on its way has its place (``offset``), or was refused; the second item: send `shown` of the key now."""
        mine = self._mine.pop(key, None)
        if mine is None:
            return [], False
        old = mine.sent if mine.next is _NOTHING else mine.next
        if accepted and offset > self._known.get(key, (0, None))[0]:
            self._known[key] = (offset, mine.sent)
            self._stale.discard(key)
        if mine.next is not _NOTHING:
            self._mine[key] = _Mine(mine.next)
            return [], True
        return self._settled(key, old), False

    def apply(self, key: str, offset: int, value: Any) -> list[Change]:
        """A write, anyone's, has arrived."""
        # At the same offset it is our own, as the bus's filter has left it.
        if offset < self._known.get(key, (0, None))[0]:
            return []
        old = self.shown(key)
        self._known[key] = (offset, value)
        self._stale.discard(key)
        return self._settled(key, old)

    def begin_snapshot(self) -> None:
        """All that the server has follows, up to `end_snapshot`. What is shown stays until then, so that nothing flickers."""
        self._stale = set(self._known)
        self._known = {key: (0, value) for key, (_, value) in self._known.items()}

    def end_snapshot(self) -> list[Change]:
        """The snapshot is complete: what was not in it is gone."""
        changes: list[Change] = []
        for key in self._stale:
            old = self.shown(key)
            self._known.pop(key, None)
            changes += self._changed(key, old)
        self._stale = set()
        return changes

    def _settled(self, key: str, old: Any) -> list[Change]:
        # A removal need be remembered only while an ack may still bring an older write: else removed keys would pile up.
        if key not in self._mine and self._known.get(key, (0, None))[1] is MISSING:
            del self._known[key]
        return self._changed(key, old)

    def _changed(self, key: str, old: Any) -> list[Change]:
        new = self.shown(key)
        return [] if _same(new, old) else [Change(key, old, new, local=False)]


def _same(a: Any, b: Any) -> bool:
    """Whether nobody can tell two values apart: what is written comes back as a copy."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    try:
        equal = a == b
        return bool(equal.all() if hasattr(equal, "all") else equal)
    except Exception:
        return False
