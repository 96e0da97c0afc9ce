"""The nodes of a compiled schema: what they ask of a decoded value, and how they say what is wrong.

A `Check` sorts the tests of one schema by the kind of value that they are about, so a value meets the tests of its own kind
only. A kind without an entry is a mismatch. Each test takes what it costs from the check's `Meter`.

Kinds are told apart strictly, as a typed reader does: 1.0 is no integer, ``True`` no number, bytes no string.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from .meter import FAILED_STEPS, Meter
from .ndarray import ArrayHead, array_name
from .patterns import Pattern

KINDS: dict[type, str] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    bytes: "bytes",
    list: "array",
    dict: "object",
    datetime: "datetime",
    ArrayHead: "ndarray",
}
"""The kinds of value that travel, by the Python type that they are decoded to, with their names."""


class Mismatch:
    """What is wrong with a value.

    Args:
        expected: What was expected in its place.
        got: What was found.

    Attributes:
        parts: The way to it, from the inside.
    """

    __slots__ = ("expected", "got", "parts")

    def __init__(self, expected: str, got: str) -> None:
        self.expected = expected
        self.got = got
        self.parts: list[Any] = []

    def at(self, part: Any) -> Mismatch:
        """The same, as seen from a container that has it at ``part``."""
        self.parts.append(part)
        return self

    @property
    def path(self) -> str:
        """The way to it, such as ``$.votes[0].weight``."""
        steps = (f".{part[:80]}" if isinstance(part, str) else f"[{str(part)[:80]}]" for part in reversed(self.parts))
        return "$" + "".join(steps)


Test = Callable[[Any, Meter], Mismatch | None]
"""Asks one thing of a value of a known kind."""


class Check:
    """What one schema asks of a value.

    Attributes:
        table: The tests, by the kind of value. A kind that is not in it is a mismatch.
        expected: What the schema expects, for people.
        tags: The properties that every object has, where each can only be one of some strings.
        is_plain: True if nothing but the kind is tested.
    """

    __slots__ = ("expected", "is_plain", "table", "tags")

    def __init__(self) -> None:
        self.table: dict[type, tuple[Test, ...]] = {}
        self.expected = ""
        self.tags: dict[str, frozenset[str]] = {}
        self.is_plain = False

    def find(self, value: Any, meter: Meter) -> Mismatch | None:
        """What is wrong with ``value``; None: nothing is.

        Raises:
            Overrun: That can't be found out within the meter.
        """
        meter.spend(1)
        tests = self.table.get(type(value))
        if tests is None:
            return Mismatch(self.expected, KINDS.get(type(value), "object"))
        for test in tests:
            found = test(value, meter)
            if found is not None:
                return found
        return None


Quick = Callable[[Any], bool]
"""Accepts most values at the speed of C, in time that is linear in them. Where it does not, the check decides."""


def quick(check: Check, depth: int = 0) -> Quick | None:
    """A quick way to accept values of the simplest types: objects and arrays whose parts have a kind and nothing else."""
    if len(check.table) != 1 or depth > 4:
        return None
    ((kind, tests),) = check.table.items()
    if not tests:
        return lambda value: type(value) is kind
    make = getattr(tests[0], "quick", None) if len(tests) == 1 else None
    found: Quick | None = None if make is None else make(depth + 1)
    return found


def _are_plain(value: list[Any], check: Check, meter: Meter) -> bool:
    """True if all items are of the check's kinds, at the speed of C."""
    meter.spend(len(value) >> 4)
    return check.table.keys() >= set(map(type, value))


# --- tests of one kind ------------------------------------------------------------------------------------------------


def bound(holds: Callable[[Any], bool], expected: str) -> Test:
    """``holds`` is true of the value."""

    def test(value: Any, _: Meter) -> Mismatch | None:
        return None if holds(value) else Mismatch(expected, _short(value))

    return test


def multiple(of: float) -> Test:
    expected = f"a multiple of {of}"

    def test(value: Any, _: Meter) -> Mismatch | None:
        if isinstance(value, int) and isinstance(of, int):
            holds = value % of == 0
        else:
            holds = math.isfinite(value) and math.fmod(value, of) == 0
        return None if holds else Mismatch(expected, _short(value))

    return test


def matches(pattern: Pattern, source: str) -> Test:
    expected = f"str that matches {source[:80]}"

    def test(value: str, meter: Meter) -> Mismatch | None:
        return None if pattern.search(value, meter) else Mismatch(expected, "another")

    return test


def formatted(holds: Callable[[str], bool], name: str) -> Test:
    def test(value: str, meter: Meter) -> Mismatch | None:
        meter.spend(1 + len(value) // 64)
        return None if holds(value) else Mismatch(name, "str")

    return test


def one_of(values: Sequence[Any]) -> Test:
    """The value is one of ``values``, of the same kind."""
    known = {_identity(value) for value in values}
    expected = " or ".join(_short(value) for value in values[:5]) + (" …" if len(values) > 5 else "")

    def test(value: Any, meter: Meter) -> Mismatch | None:
        if type(value) in (list, dict):
            meter.spend(_weight(value, meter))
        return None if _identity(value) in known else Mismatch(expected, _short(value))

    return test


def array(first: Sequence[Check], rest: Check | None, low: int, high: float, *, unique: bool) -> Test:
    """The items of an array: the ``first`` ones, and the ``rest`` (None: any)."""
    head = len(first)
    size = f"an array of {low} items" if low == high else f"an array of {low} to {high} items"

    def test(value: list[Any], meter: Meter) -> Mismatch | None:
        if not low <= len(value) <= high:
            return Mismatch(size, f"{len(value)} items")
        meter.enter()
        for i, check in enumerate(first[: len(value)]):
            found = check.find(value[i], meter)
            if found is not None:
                return found.at(i)
        if rest is not None and not (rest.is_plain and not head and _are_plain(value, rest, meter)):
            find = rest.find
            for i in range(head, len(value)):
                found = find(value[i], meter)
                if found is not None:
                    return found.at(i)
        meter.leave()
        if unique:
            seen = set()
            for i, item in enumerate(value):
                meter.spend(_weight(item, meter))
                identity = _identity(item)
                if identity in seen:
                    return Mismatch("an item that is not there yet", "it twice").at(i)
                seen.add(identity)
        return None

    def quick_items(_: int) -> Quick | None:
        if head or rest is None or not rest.is_plain or low or high != math.inf or unique:
            return None
        is_known = frozenset(rest.table).issuperset
        return lambda value: type(value) is list and is_known(map(type, value))

    test.quick = quick_items  # type: ignore[attr-defined]
    return test


def contains(check: Check, low: int, high: float) -> Test:
    def test(value: list[Any], meter: Meter) -> Mismatch | None:
        meter.enter()
        depth, count = meter.depth, 0
        for item in value:
            count += check.find(item, meter) is None
            meter.depth = depth
        meter.leave()
        return None if low <= count <= high else Mismatch(f"an array that contains {check.expected}", f"{count} of it")

    return test


class Fields:
    """What is asked of an object.

    Args:
        properties: The checks of named properties.
        patterns: The checks of properties whose names match.
        rest: The check of the other properties; None: any.
        keys: The check of the keys; None: they are strings.
        required: The properties that must be there.
        low: The least number of properties.
        high: The greatest.
    """

    __slots__ = ("_high", "_keys", "_low", "_patterns", "_plain", "_properties", "_required", "_rest")

    def __init__(
        self,
        properties: Mapping[str, Check],
        patterns: Sequence[tuple[Pattern, Check]],
        rest: Check | None,
        keys: Check | None,
        required: Iterable[str],
        low: int,
        high: float,
    ) -> None:
        self._properties, self._patterns, self._rest, self._keys = properties, patterns, rest, keys
        self._required, self._low, self._high = frozenset(required), low, high
        self._plain: frozenset[tuple[str, type]] | None = None

    def quick(self, depth: int) -> Quick | None:
        """See `quick`."""
        if self._keys is not None or self._patterns or self._rest is not None or self._low or self._high != math.inf:
            return None
        plain, required, most = self._find_plain(), self._required, len(self._properties)
        parts = {name: found for name, check in self._properties.items() if (found := quick(check, depth)) is not None}

        # By the names and kinds of an object's properties: what remains to be asked of it. Few forms make up most values.
        forms: dict[Any, tuple[tuple[str, Quick], ...]] = {}

        def form_of(value: dict[Any, Any]) -> tuple[tuple[str, Quick], ...] | None:
            left = {*zip(value, map(type, value.values()), strict=True)} - plain
            if not required <= value.keys() or not all(name in parts for name, _ in left):
                return None
            found = tuple((name, parts[name]) for name, _ in left)
            if len(forms) < 16:
                forms[(*value, *map(type, value.values()))] = found
            return found

        def accepts(value: Any) -> bool:
            if type(value) is not dict or len(value) > most:
                return False
            left = forms.get((*value, *map(type, value.values())))
            if left is None:
                left = form_of(value)
                if left is None:
                    return False
            for name, accepts_part in left:  # noqa: SIM110 (a generator takes as long as all the rest)
                if not accepts_part(value[name]):
                    return False
            return True

        return accepts

    def __call__(self, value: dict[Any, Any], meter: Meter) -> Mismatch | None:
        plain = self._plain
        if plain is None:  # only now are the checks of the properties complete
            plain = self._plain = self._find_plain()
        if not self._low <= len(value) <= self._high:
            return Mismatch(f"an object of {self._low} to {self._high} properties", f"{len(value)} properties")
        if not self._required <= value.keys():
            missing = min(self._required - value.keys())
            return Mismatch(f"property `{missing[:80]}`", "an object without it")
        meter.spend(len(value) >> 2)
        # Most properties have a kind, and nothing else: they are found, all at once, at the speed of C.
        if plain and plain.issuperset(zip(value, map(type, value.values()), strict=True)):
            return None
        return self._test_each(value, plain, meter)

    def _find_plain(self) -> frozenset[tuple[str, type]]:
        """The properties, with their kinds, of which nothing else is asked."""
        if self._keys is not None or self._patterns:
            return frozenset()
        return frozenset(
            (name, kind) for name, check in self._properties.items() for kind, tests in check.table.items() if not tests
        )

    def _test_each(self, value: dict[Any, Any], plain: frozenset[tuple[str, type]], meter: Meter) -> Mismatch | None:
        meter.enter()
        properties, rest, keys = self._properties, self._rest, self._keys
        for key, item in value.items():
            if (key, type(item)) in plain:
                continue
            if keys is not None:
                found = keys.find(_as_item(key), meter)
                if found is not None:
                    found.expected += " as a key"
                    return found.at(key)
            elif type(key) is not str:
                return Mismatch("str as a key", KINDS.get(type(key), "array")).at(_as_item(key))
            check = properties.get(key)
            matched = check is not None
            for pattern, each in self._patterns:
                if pattern.search(str(key), meter):
                    matched = True
                    found = each.find(item, meter)
                    if found is not None:
                        return found.at(key)
            if not matched:
                check = rest
            if check is not None:
                found = check.find(item, meter)
                if found is not None:
                    return found.at(key)
        meter.leave()
        return None


def needs_with(names: Mapping[str, Sequence[str]]) -> Test:
    """Properties that must be there where another is."""

    def test(value: dict[Any, Any], meter: Meter) -> Mismatch | None:
        meter.spend(len(names))
        for name, needed in names.items():
            if name in value:
                meter.spend(len(needed))
                for other in needed:
                    if other not in value:
                        return Mismatch(f"property `{other[:80]}`", f"`{name[:80]}` without it")
        return None

    return test


def ndarray(asked: dict[str, Any]) -> Test:
    expected = array_name(asked)
    dtype, ndim = asked.get("dtype"), asked.get("ndim")

    def test(value: ArrayHead, _: Meter) -> Mismatch | None:
        if (dtype is None or value.dtype == dtype) and (ndim is None or len(value.shape) == ndim):
            return None
        return Mismatch(expected, array_name({"dtype": value.dtype, "ndim": ndim and len(value.shape)}))

    return test


# --- combinations -----------------------------------------------------------------------------------------------------


def any_of(branches: Sequence[Check], expected: str, kind: type) -> Test:
    """One branch at least has nothing against the value. It is of ``kind``, which all of the branches know."""
    if len(branches) == 1:
        return branches[0].find
    by_tag = _by_tag(branches) if kind is dict else None

    def test(value: Any, meter: Meter) -> Mismatch | None:
        if by_tag is not None:
            name, tagged = by_tag
            tag = value.get(name)
            chosen = tagged.get(tag) if type(tag) is str else None
            if chosen is None:
                return Mismatch(" or ".join(list(tagged)[:5]), _short(tag)).at(name)
            return chosen.find(value, meter)
        depth, best = meter.depth, None
        for branch in branches:
            found = branch.find(value, meter)
            meter.depth = depth
            if found is None:
                return None
            meter.spend(FAILED_STEPS)
            if best is None or len(found.parts) > len(best.parts):
                best = found
        return best if best is not None and best.parts else Mismatch(expected, _short(value))

    return test


def exactly_one_of(branches: Sequence[Check], expected: str) -> Test:
    def test(value: Any, meter: Meter) -> Mismatch | None:
        depth, matched, best = meter.depth, 0, None
        for branch in branches:
            found = branch.find(value, meter)
            meter.depth = depth
            meter.spend(FAILED_STEPS)
            if found is None:
                matched += 1
            elif best is None or len(found.parts) > len(best.parts):
                best = found
        if matched == 1:
            return None
        if matched == 0 and best is not None and best.parts:
            return best
        return Mismatch(f"exactly one of {expected}", f"a value that is {matched} of them")

    return test


def are_told_apart(branches: Sequence[Check], kind: type) -> bool:
    """True if a value of ``kind`` can't match two of the branches."""
    return len(branches) == 1 or (kind is dict and _by_tag(branches) is not None)


def not_(check: Check) -> Test:
    def test(value: Any, meter: Meter) -> Mismatch | None:
        depth = meter.depth
        found = check.find(value, meter)
        meter.depth = depth
        return None if found is not None else Mismatch(f"anything but {check.expected}", _short(value))

    return test


def if_(condition: Check, then: Check | None, otherwise: Check | None) -> Test:
    def test(value: Any, meter: Meter) -> Mismatch | None:
        depth = meter.depth
        chosen = then if condition.find(value, meter) is None else otherwise
        meter.depth = depth
        return None if chosen is None else chosen.find(value, meter)

    return test


def _by_tag(branches: Sequence[Check]) -> tuple[str, dict[str, Check]] | None:
    """The property that tells the branches apart, and the branch of each of its values."""
    for name in branches[0].tags:
        found: dict[str, Check] = {}
        for branch in branches:
            tags = branch.tags.get(name, frozenset())
            if not tags or tags & found.keys():
                break
            found |= dict.fromkeys(sorted(tags), branch)
        else:
            return name, found
    return None


# --- values -----------------------------------------------------------------------------------------------------------


def _encode_head(value: Any) -> Any:
    if isinstance(value, ArrayHead):
        return value.as_extension()
    raise NotImplementedError


_as_it_is = msgspec.msgpack.Encoder(enc_hook=_encode_head).encode
_deterministic = msgspec.msgpack.Encoder(enc_hook=_encode_head, order="deterministic").encode


def _identity(value: Any) -> Any:
    """Equal for equal values of the same kind only."""
    if isinstance(value, str | int | None):
        return value.__class__, value
    try:
        return _deterministic(value)
    except TypeError:  # a map whose keys have no order
        return _as_it_is(value)


def _weight(value: Any, meter: Meter) -> int:
    """The number of values in a value."""
    if type(value) not in (list, dict):
        return 1
    meter.enter()
    found = 1 + sum(_weight(item, meter) for item in (value.values() if type(value) is dict else value))
    meter.leave()
    return found


def _as_item(key: Any) -> Any:
    """A map's key as the value that it would be elsewhere: arrays are decoded to tuples there."""
    return [_as_item(item) for item in key] if type(key) is tuple else key


def _short(value: Any) -> str:
    if type(value) is str:
        return repr(value[:40]) + ("…" if len(value) > 40 else "")
    return str(value) if isinstance(value, bool | int | float | None) else KINDS.get(type(value), "object")


def names_of(kinds: Iterable[type]) -> str:
    """The names of kinds, as a mismatch says them. Where a float is expected, an int is one."""
    found = set(kinds)
    if float in found:
        found.discard(int)
    return " or ".join(name for kind, name in KINDS.items() if kind in found) or "nothing"
