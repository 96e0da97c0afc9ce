"""The errors of ebus_jupyter, in one tree.

::

    EbusError
     ├── Rejected                 the write was refused; nothing was logged
     │    ├── TypeMismatch        the value is not of the bus's type            type_mismatch
     │    ├── Filtered            the bus's filter refused it                   filtered
     │    ├── Forbidden           this participant may not do that              forbidden
     │    ├── TooLarge            a value, name or bus is over its bound        too_large
     │    ├── RateLimited         too many, too fast; try again later           rate_limited
     │    └── Conflict            the expected offset is no longer the last     conflict
     ├── FilterUnavailable        the kernel that filters this bus is away      filter_unavailable
     ├── Lagged                   the reader was too slow and missed messages   lagged
     ├── Closed                   the bus, stream or client is closed           closed
     ├── ConnectionLost           the broker can't be reached                   connection_lost
     ├── SpecConflict             the bus exists with another specification     spec_conflict
     ├── NoSuchBus                no such bus within this participant's reach   no_such_bus
     ├── InvalidName              a bus name that no bus can have (ValueError)  invalid_name
     ├── UnknownScope             a scope that does not exist here (ValueError) unknown_scope
     ├── Unauthenticated          no token, or one that nobody issued           unauthenticated
     ├── ProtocolError            a frame that this version can't understand    protocol
     └── BackendError             the log could not be written or read          backend

The word on the right is the error's ``code``: stable, and the same in Python, in JavaScript and on the wire.
``temporary`` says whether the same call may succeed later without a change. A filter raises `Reject`, which is not in the
tree: the writer receives `Filtered`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self, TypeVar

from .terminal import printable

E = TypeVar("E", bound="EbusError")


class EbusError(Exception):
    """The root of the tree.

    Args:
        text: In one or two sentences: the bus or participant concerned, what is wrong, and what to do next.
        details: Facts for programs; every item is also an attribute of the error.

    The error's ``str`` is what a terminal shows of it. The names, types and reasons in it may be others': see `printable`.

    Attributes:
        text: The text as it was given.
        code: The stable name of the error (class attribute).
        temporary: True if the same call may succeed later without a change (class attribute).
    """

    code: ClassVar[str] = "error"
    temporary: ClassVar[bool] = False

    def __init__(self, text: str = "", **details: Any) -> None:
        super().__init__(text)
        self.text = text
        self.details = details

    def __str__(self) -> str:
        return printable(self.text)

    def __getattr__(self, name: str) -> Any:
        # Only called when normal lookup fails.
        details = self.__dict__.get("details", {})
        if name in details:
            return details[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def anew(self) -> Self:
        """A copy, to be raised in place of an error that is kept.

        A raised exception refers to the stack that it passed, and so to everything that was in use there. Kept, it would keep
        all that alive, such as the widget whose share was closed.
        """
        twin: Self = _rebuild(type(self), self.text, self.details)
        twin.__cause__ = self.__cause__
        return twin

    def __reduce__(self) -> Any:
        return (_rebuild, (type(self), self.text, self.details))


def _rebuild(cls: type[E], text: str, details: dict[str, Any]) -> E:
    return cls(text, **details)


class Rejected(EbusError):
    """The write was refused: no participant saw it, and nothing was logged."""

    code = "rejected"


class TypeMismatch(Rejected):
    """The value is not of the bus's type. ``path`` is a JSON path such as ``$.weight``."""

    code = "type_mismatch"


class Filtered(Rejected):
    """The bus's filter refused the value. ``reason`` is the text of its `Reject`."""

    code = "filtered"


class Forbidden(Rejected):
    """This participant is not allowed to do that."""

    code = "forbidden"


class TooLarge(Rejected):
    """A value, a name, a bus or a list is over its bound. ``limit`` names the bound (see `core.protocol.limits`)."""

    code = "too_large"


class RateLimited(Rejected):
    """Too many writes, or too fast. ``retry_after`` is in seconds."""

    code = "rate_limited"
    temporary = True


class Conflict(Rejected):
    """A compare-and-set found another offset than the expected one. ``actual`` is the offset that it found."""

    code = "conflict"


class FilterUnavailable(EbusError):
    """The kernel that filters this bus is away; the write was not accepted unfiltered."""

    code = "filter_unavailable"
    temporary = True


class Lagged(EbusError):
    """The reader was too slow, or away too long, and missed messages. The stream goes on after this.

    Attributes:
        skipped: The number of messages missed; None where it can't be known (the bus was made anew).
        resume_after: The stream goes on with the first message after this offset.
    """

    code = "lagged"
    temporary = True

    def __init__(self, text: str = "", *, skipped: int | None = None, resume_after: int = 0, **details: Any) -> None:
        missed = "an unknown number of messages" if skipped is None else f"{skipped} message{'s' * (skipped != 1)}"
        super().__init__(
            text
            or f"missed {missed}; the stream goes on after offset {resume_after}. Read faster, or give the bus a larger size.",
            skipped=skipped,
            resume_after=resume_after,
            **details,
        )


class Closed(EbusError):
    """The bus, the stream or the client is closed. ``reason`` says why, as one word or a few."""

    code = "closed"


class ConnectionLost(EbusError):
    """The broker can't be reached. The client goes on trying, and sends unanswered writes again."""

    code = "connection_lost"
    temporary = True


class SpecConflict(EbusError):
    """The bus exists with another specification. ``given`` and ``existing`` hold the fields that differ."""

    code = "spec_conflict"


class NoSuchBus(EbusError):
    """There is no such bus within this participant's reach: it does not exist, or is not visible from here."""

    code = "no_such_bus"


class InvalidName(EbusError, ValueError):
    """A name that no bus can have."""

    code = "invalid_name"


class UnknownScope(EbusError, ValueError):
    """A scope that does not exist, or not on this broker."""

    code = "unknown_scope"


class Unauthenticated(EbusError):
    """There is no token, or one that this server did not issue."""

    code = "unauthenticated"


class ProtocolError(EbusError):
    """A frame that the other side can't understand."""

    code = "protocol"


class BackendError(EbusError):
    """The log of the bus could not be written or read. A write that fails so was not accepted."""

    code = "backend"
    temporary = True


class Reject(Exception):
    """Raise this in a filter to refuse a write. Its text is the ``reason`` of the writer's `Filtered`."""


def _tree(cls: type[EbusError]) -> dict[str, type[EbusError]]:
    found = {cls.code: cls}
    for sub in cls.__subclasses__():
        found.update(_tree(sub))
    return found


BY_CODE: dict[str, type[EbusError]] = _tree(EbusError)
"""The classes of the tree, by their codes."""


def from_wire(code: str, text: str, details: dict[str, Any] | None = None) -> EbusError:
    """Rebuild an error that was sent by a broker. The code of a newer version becomes a plain `EbusError`."""
    cls = BY_CODE.get(code, EbusError)
    # A detail of these names would be taken for an argument of the class itself.
    return cls(text, **{name: detail for name, detail in (details or {}).items() if name not in ("self", "text")})


def shorten(text: str, longest: int = 200) -> str:
    """Cut a text that came from outside, so that the error that quotes it stays readable.

    >>> shorten("x" * 9, longest=3)
    'xxx…'
    """
    return text if len(text) <= longest else text[:longest] + "…"
