"""One participant's copy of a shared state: a mapping whose writes the broker orders, so that all copies end up equal.

The last write of a key, in the broker's order, wins. A participant's own write is shown at once. Until it has its place in
the order, writes of others to that key are recorded but not shown, for they may come before or after it; then the latest
of all is shown. So a slider that is being dragged never jumps back, and every copy ends with the same value.

While a write of a key has no answer, a newer one waits, and replaces one that waits already. A drag at 60 Hz over a slow
line sends as much as the line takes, and always the last value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING", "__bool__": lambda self: False})()
"""The value of an absent key."""


class Change(NamedTuple):
    """The shown value of a key has changed.

    Attributes:
        key: The key.
        old: The value before; `MISSING` where the key was absent.
        new: The value now; `MISSING` where the key was removed.
        local: True if this participant made the change.
    """

    key: str
    old: Any
    new: Any
    local: bool


class _Own:
    """This participant's writes of one key: the one without an answer, and the one that waits for that answer."""

    __slots__ = ("next", "sent")

    def __init__(self, sent: Any) -> None:
        self.sent = sent
        self.next: Any = _NOTHING


_NOTHING = object()


class Replica:
    """A copy of one shared state. Values are opaque; `MISSING` stands for an absent key."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Any]] = {}
        self._own: dict[str, _Own] = {}
        self._stale: set[str] = set()

    def shown(self, key: str) -> Any:
        """The value that this participant sees; `MISSING` where the key is absent."""
        own = self._own.get(key)
        if own is not None:
            return own.sent if own.next is _NOTHING else own.next
        return self._known.get(key, (0, MISSING))[1]

    def offset(self, key: str) -> int:
        """The offset of the broker's value, as far as it is known here; 0 where the broker has none."""
        offset, value = self._known.get(key, (0, MISSING))
        return 0 if value is MISSING else offset

    @property
    def busy(self) -> bool:
        """True while a write of this participant has no answer."""
        return bool(self._own)

    def keys(self) -> Iterator[str]:
        """The keys that are shown."""
        return (key for key in dict.fromkeys([*self._known, *self._own]) if self.shown(key) is not MISSING)

    def write(self, key: str, value: Any) -> tuple[Change, bool]:
        """Write a value (`MISSING`: remove the key).

        Returns:
            The change, and whether to send the write now. If not, `accepted` or `refused` will ask for it.
        """
        old = self.shown(key)
        own = self._own.get(key)
        if own is None:
            self._own[key] = _Own(value)
        else:
            own.next = value
        return Change(key, old, value, local=True), own is None

    def accepted(self, key: str, offset: int) -> tuple[list[Change], bool]:
        """The write of ``key`` that was sent is accepted at ``offset``.

        Returns:
            The changes, and whether to send the value of `shown` now: a newer write has waited.
        """
        own = self._own.get(key)
        if own is not None and offset > self._known.get(key, (0, None))[0]:
            self._known[key] = (offset, own.sent)
            self._stale.discard(key)
        return self._answered(key)

    def refused(self, key: str) -> tuple[list[Change], bool]:
        """The write of ``key`` that was sent is refused. Returns the same as `accepted`."""
        return self._answered(key)

    def _answered(self, key: str) -> tuple[list[Change], bool]:
        own = self._own.pop(key, None)
        if own is None:
            return [], False
        if own.next is not _NOTHING:
            self._own[key] = _Own(own.next)
            return [], True
        return self._settled(key, own.sent), False

    def apply(self, key: str, offset: int, value: Any) -> list[Change]:
        """A write of any participant has arrived, at ``offset``. Returns the changes."""
        # At the same offset it is our own, as the bus's filter has left it.
        if offset < self._known.get(key, (0, None))[0]:
            return []
        old = self.shown(key)
        self._known[key] = (offset, value)
        self._stale.discard(key)
        return self._settled(key, old)

    def begin_snapshot(self) -> None:
        """The whole state follows, up to `end_snapshot`. Shown values stay until then, so that nothing flickers."""
        self._stale = set(self._known)
        self._known = {key: (0, value) for key, (_, value) in self._known.items()}

    def end_snapshot(self) -> list[Change]:
        """The snapshot is complete: keys that were not in it are gone. Returns the changes."""
        changes: list[Change] = []
        for key in self._stale:
            old = self.shown(key)
            self._known.pop(key, None)
            changes += self._changed(key, old)
        self._stale = set()
        return changes

    def _settled(self, key: str, old: Any) -> list[Change]:
        # A removal need be remembered only while an ack may still bring an older write: else removed keys would pile up.
        if key not in self._own and self._known.get(key, (0, None))[1] is MISSING:
            del self._known[key]
        return self._changed(key, old)

    def _changed(self, key: str, old: Any) -> list[Change]:
        new = self.shown(key)
        return [] if _same(new, old) else [Change(key, old, new, local=False)]


def _same(a: Any, b: Any) -> bool:
    """True if two values can't be told apart. Identity is not enough: a written value comes back as a copy."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    try:
        equal = a == b
        return bool(equal.all() if hasattr(equal, "all") else equal)
    except BaseException:  # of a program's own type: whatever it raises, the copy goes on
        return False
