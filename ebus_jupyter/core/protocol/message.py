"""The nouns of the protocol: a `Participant` writes a `Message` to a bus that a `BusSpec` describes."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

import msgspec

from ebus_jupyter.errors import SpecConflict, TooLarge

from .limits import Limits
from .schema_change import IncompatibleError, joined

T = TypeVar("T")

Kind = Literal["kernel", "page", "server", "client"]
Retain = Literal["log", "latest", "keys"]

OWNER = "@owner"
"""The value of `BusSpec.filter` for a bus that is filtered by the kernel which made it."""


class Participant(msgspec.Struct, frozen=True, array_like=True):
    """A client, as the broker knows it from the authenticated connection; nothing here is claimed by the client itself.

    Attributes:
        id: Names one client instance over its reconnects; safe to show to others.
        kind: "kernel", "page", "server" (the server itself) or "client" (any other client that holds a token).
        user: The username that the identity provider gives.
        name: The display name that the identity provider gives.
        kernel_id: The kernel, where ``kind`` is "kernel"; else "".
        groups: The groups that the identity provider puts the user in.
        anonymous: True if ``user`` stands for everyone who holds a token that names nobody: it is no person.
    """

    id: str
    kind: Kind
    user: str
    name: str = ""
    kernel_id: str = ""
    groups: tuple[str, ...] = ()
    anonymous: bool = False


def public(who: Participant) -> Participant:
    """The participant as others may see it: without its groups."""
    return msgspec.structs.replace(who, groups=()) if who.groups else who


Id = tuple[str, int]
"""The identity of a write over all retries: its sender's id and the sender's own count of its writes."""


def message_id(id_: Id) -> str:
    """`Message.id` of a write."""
    return f"{id_[0]}-{id_[1]}"


class Message(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One accepted write, as every participant receives it.

    Attributes:
        offset: Its place in the order of the bus. Strictly increasing, from 1; not always contiguous.
        id: Names the write: the sender's id and the sender's own count. A retry keeps it.
        time: When the broker accepted it, in seconds since the Unix epoch, by the broker's clock.
        value: The value, after the filter.
        sender: The participant that wrote it.
        key: The entry it sets, on a bus that retains by key; else None.
        deleted: True where it removes that entry.
        filtered_by: Whose filter has seen the value, and may have changed it: see `BusSpec.filtered_by`. "": it is the
            sender's own.
    """

    offset: int
    id: str
    time: float
    value: T
    sender: Participant
    key: str | None = None
    deleted: bool = False
    filtered_by: str = ""


class BusSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The specification of a bus. Two participants that open one name agree on it, or the second gets `SpecConflict`.

    Attributes:
        type: The name of the written type, for people.
        schema: JSON Schema of written values; None takes any value. The broker holds every writer to it.
        emits: JSON Schema of received values, where a filter changes the type; None: as written.
        retain: "log" keeps the last ``size`` messages; "latest" the last one (slow readers see only the newest);
            "keys" the last one of each key, up to ``size`` keys.
        size: How many messages (or keys) are kept. Default: 1000.
        filter: None; `OWNER` (the kernel that made the bus); or the name of a filter in the server.
        readers: Users and ``group:NAME`` who may read; None: all in scope.
        writers: Users and ``group:NAME`` who may write; None: all in scope.
        maker: The user who made the bus, and whose kernel may filter it. Stamped by the broker; nobody can ask for it.
        version: How often the spec was altered, from 1. Stamped by the broker.
        altered: When it was altered last, in seconds since the Unix epoch; 0: never. Stamped by the broker.
        first_size: The size that it was made with, where it has a greater one by now; else 0. Stamped by the broker.
    """

    type: str = ""
    schema: dict[str, Any] | None = None
    emits: dict[str, Any] | None = None
    retain: Retain = "log"
    size: int = 1000
    filter: str | None = None
    readers: tuple[str, ...] | None = None
    writers: tuple[str, ...] | None = None
    maker: str = ""
    version: int = 1
    altered: float = 0.0
    first_size: int = 0

    @property
    def filtered_by(self) -> str:
        """Whose filter each write passes: "user:NAME", whose kernel runs it; "server:NAME", a filter of the server's; or ""."""
        if self.filter is None:
            return ""
        return f"user:{self.maker}" if self.filter == OWNER else f"server:{self.filter}"

    @classmethod
    def create(cls, given: dict[str, Any], limits: Limits) -> BusSpec:
        """The spec of a new bus.

        Args:
            given: Fields of the spec; those left out take their defaults.
            limits: The broker's bounds.

        Raises:
            SpecConflict: A spec has no such field, or the field can't have that value.
            TooLarge: A size, schema or list is over the broker's bound.
        """
        unknown = set(given) - set(GIVEN)
        if unknown:
            raise SpecConflict(f"a bus has no {', '.join(sorted(map(str, unknown)))}; it has {', '.join(GIVEN)}.")
        try:
            spec = msgspec.convert({"size": min(cls().size, limits.size), **given}, cls)
        except msgspec.ValidationError as error:
            raise SpecConflict(f"that is no bus specification: {error}.") from None
        if not 1 <= spec.size <= limits.size:
            raise TooLarge(f"size={spec.size} is outside 1…{limits.size} (the server's limit `size`).", limit="size")
        try:
            encoded = msgspec.json.encode((spec.type, spec.schema, spec.emits))
        except (TypeError, ValueError, RecursionError) as error:
            raise SpecConflict(f"the type's JSON Schema is no JSON: {error}.") from None
        if len(encoded) > limits.schema_bytes:
            raise TooLarge(
                "the type's JSON Schema is too large (the server's limit `schema_bytes`).", limit="schema_bytes"
            )
        for listed in (spec.readers, spec.writers):
            if listed is not None and len(listed) > limits.recipients:
                raise TooLarge(
                    f"more than {limits.recipients} users in an access list; name a group instead.", limit="recipients"
                )
            if listed is not None and any(len(name) > limits.name_chars for name in listed):
                raise TooLarge(
                    f"a name in an access list has at most {limits.name_chars} characters.", limit="name_chars"
                )
        return spec

    def join(self, given: dict[str, Any], name: str) -> BusSpec:
        """Check the fields of a second opener against this spec; fields left out are as they are here.

        Types are compared by meaning (`core.protocol.schema_change`), and a type's name is for people.

        Args:
            given: The fields that the opener gave.
            name: The bus's name, for the error.

        Returns:
            This spec; or, where the opener asks for a compatible change (an optional field more, a greater ``size``), the spec
            of both.

        Raises:
            SpecConflict: Fields differ: the error's ``given`` and ``existing`` hold them. Where types differ, ``path`` says
                where, and the text who would break.
        """
        existing = {field: _plain(getattr(self, field)) for field in given if field in GIVEN}
        differing = [field for field in given if field not in existing or _plain(given[field]) != existing[field]]
        changes: dict[str, Any] = {}
        why: IncompatibleError | None = None
        for field in list(differing):
            if field in ("schema", "emits"):
                try:
                    both = joined(existing[field], given[field])
                except IncompatibleError as error:
                    why = why or error
                    continue
                if both is not existing[field]:
                    changes[field] = both
            elif field == "size" and type(given[field]) is int and given[field] >= (self.first_size or self.size):
                if given[field] > self.size:  # a smaller one that it had before is what an older program asks for
                    changes |= {"size": given[field], "first_size": self.first_size or self.size}
            elif field != "type" or "schema" not in given:
                continue
            differing.remove(field)
        if why is not None and "type" in given:
            differing = [field for field in given if field in differing or field == "type"]
        if differing:
            was = {field: existing.get(field) for field in differing}
            now = {field: given[field] for field in differing}
            filtered = self.filtered_by if "filter" in differing else ""
            whose = f" It is filtered by {filtered}, which may change what others write." if filtered else ""
            said = "; ".join(
                f"its type is another one {why}"
                if field == "schema"
                else f"what it emits is another type {why}"
                if field == "emits" and why is not None
                else f"{field} is {was[field]!r}, you asked for {now[field]!r}"
                for field in differing
                if field != "type" or why is None
            )
            where = {} if why is None else {"path": why.path}
            raise SpecConflict(
                f"bus {name!r} exists already: {said}.{whose} Open it without {', '.join(differing)}, or choose another "
                "name, or delete the bus with all that it keeps.",
                given=now,
                existing=was,
                **where,
            )
        return msgspec.structs.replace(self, **changes) if changes else self


GIVEN = tuple(
    field for field in BusSpec.__struct_fields__ if field not in ("maker", "version", "altered", "first_size")
)
"""The names of the fields that an opener may give."""


def _plain(field: Any) -> Any:
    """A field as it travels: access lists as lists."""
    return list(field) if isinstance(field, tuple) else field


def allows(listed: tuple[str, ...] | None, who: Participant) -> bool:
    """True if an access list (``readers``, ``writers``) admits ``who``. It always admits the server itself."""
    return listed is None or who.kind == "server" or names(listed, who)


GROUP = "group:"
"""How the name of a group begins in a list of users. A user whose name begins so is not found by it."""


def names(listed: tuple[str, ...], who: Participant) -> bool:
    """True if a list of users and groups names a participant."""
    user = who.user
    return (user in listed and not user.startswith(GROUP)) or any(GROUP + group in listed for group in who.groups)
