"""A JSON Schema becomes a `Check`: what a published schema means on the wire, and what it may cost.

The meaning is the one of JSON Schema (draft 2020-12), said about MessagePack: kinds are told apart strictly (`checks`), a
string with ``contentEncoding: base64`` is bytes, one with ``format: date-time`` may be a timestamp, formats are what readers
decode (`formats`), patterns are linear (`patterns`). What JSON Schema has no word for is in ``x-ebus``, an object:

| member | on | meaning |
| --- | --- | --- |
| ``ndarray`` | object | a numpy array; an object of ``dtype`` and ``ndim``, both optional |
| ``keys`` | object | the schema of the map's keys, where they are not strings |
| ``tz`` | date-time, time | true: with a time zone; false: without |
| ``finite`` | number | true: no NaN and no infinity |
| ``minBytes``, ``maxBytes`` | bytes | the length |

Schemas come from clients. Each part is compiled once, however often it is referred to, and a schema whose parts are too
many, nested too deeply, or multiply (a part that tests one value in a thousand ways) is refused. Keywords that can't be
checked are refused, rather than ignored; words for people are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from ebus_jupyter.errors import SpecConflict

from . import checks
from .checks import KINDS, Check, Test, names_of
from .formats import FORMATS, NAMES, has_zone
from .ndarray import ArrayHead
from .patterns import Pattern

MAX_NODES = 2_000
"""The parts of one schema."""

MAX_DEPTH = 60
"""Their nesting."""

MAX_WAYS = 500
"""The tests that one schema may make of one value, its items and properties not counted."""

MAX_PATTERNS = 50
"""The patterns of one schema."""

MAX_POSITIONS = 2_000
"""The size of all its patterns together."""

_UNSUPPORTED = frozenset(
    {
        "$anchor",
        "$dynamicRef",
        "$dynamicAnchor",
        "$recursiveRef",
        "$recursiveAnchor",
        "additionalItems",
        "dependencies",
        "dependentSchemas",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_OBJECT = frozenset(
    {
        "properties",
        "patternProperties",
        "additionalProperties",
        "propertyNames",
        "required",
        "minProperties",
        "maxProperties",
        "dependentRequired",
    }
)
_TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
}


def compile_schema(schema: Any) -> Check:
    """The check that a JSON Schema asks for.

    Raises:
        SpecConflict: It is no JSON Schema, refers to something outside itself, or asks for too much.
    """
    compiler = _Compiler(schema)
    try:
        root = compiler.part(schema, "#", 0)
        while compiler.referred:
            compiler.compile(*compiler.referred.pop())
        compiler.link()
    except RecursionError:
        raise _unusable("it is nested too deeply", "#") from None
    return root


class _Part:
    """A check that is being compiled: the tests of single kinds, and the checks of the same value that it combines."""

    __slots__ = ("check", "combine", "expected", "kinds", "same", "state", "tests", "ways")

    def __init__(self) -> None:
        self.check = Check()
        self.kinds: set[type] = set(KINDS)
        self.expected = ""
        self.tests: dict[type, list[Test]] = {}
        self.same: list[_Part] = []
        self.combine: list[Callable[[], None]] = []
        self.state = 0  # 1: being linked; 2: linked
        self.ways = 1

    def add(self, test: Test, *kinds: type) -> None:
        for kind in kinds:
            self.tests.setdefault(kind, []).append(test)


class _Compiler:
    def __init__(self, document: Any) -> None:
        self.document = document
        self.parts: list[_Part] = []
        self.by_ref: dict[str, _Part] = {}
        self.referred: list[tuple[Any, str, int, _Part]] = []  # to be compiled, each once
        self.patterns: dict[str, Pattern] = {}
        self.positions = 0

    def part(self, schema: Any, at: str, depth: int) -> Check:
        return self.compile(schema, at, depth).check

    def compile(self, schema: Any, at: str, depth: int, part: _Part | None = None) -> _Part:
        if depth > MAX_DEPTH:
            raise _unusable(f"it is nested more than {MAX_DEPTH} levels deep", at)
        if len(self.parts) >= MAX_NODES:
            raise _unusable(f"it has more than {MAX_NODES} parts", at)
        part = part or _Part()
        self.parts.append(part)
        if schema is False:
            part.kinds.clear()
            part.expected = "nothing here"
        elif isinstance(schema, dict):
            _Keywords(self, part, schema, at, depth).read()
        elif schema is not True:
            raise _unusable(f"a schema is an object, true or false, not {str(schema)[:40]!r}", at)
        return part

    def reference(self, ref: Any, at: str) -> _Part:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise _unusable(f"$ref refers to a part of the same schema (#/…), not to {str(ref)[:80]!r}", at)
        found = self.by_ref.get(ref)
        if found is None:
            target = self.document
            for step in ref[2:].split("/") if ref != "#" else ():
                step = step.replace("~1", "/").replace("~0", "~")
                if isinstance(target, dict) and step in target:
                    target = target[step]
                elif isinstance(target, list) and step.isdecimal() and len(step) < 6 and int(step) < len(target):
                    target = target[int(step)]
                else:
                    raise _unusable(f"there is no {ref[:80]}", at)
            found = self.by_ref[ref] = _Part()
            self.referred.append((target, ref, 0, found))
        return found

    def pattern(self, source: Any, at: str) -> Pattern:
        _expect(isinstance(source, str), "a pattern is a string", at)
        found = self.patterns.get(source)
        if found is None:
            if len(self.patterns) >= MAX_PATTERNS:
                raise _unusable(f"it has more than {MAX_PATTERNS} patterns", at)
            try:
                found = self.patterns[source] = Pattern(source)
            except ValueError as error:
                raise _unusable(str(error), at) from None
            self.positions += found.positions
            if self.positions > MAX_POSITIONS:
                raise _unusable("its patterns are too large together", at)
        return found

    def link(self) -> None:
        """Give each check the tests of what it combines; those that it refers to come first."""
        for part in self.parts:
            self._link(part)

    def _link(self, part: _Part) -> None:
        if part.state == 2:
            return
        if part.state == 1:
            raise _unusable("it refers to itself with no property or item between", "#")
        part.state = 1
        for other in part.same:
            self._link(other)
            part.ways += other.ways
        if part.ways > MAX_WAYS:
            raise _unusable(f"one value would be tested in more than {MAX_WAYS} ways", "#")
        for combine in part.combine:
            combine()
        check = part.check
        check.expected = part.expected or names_of(part.kinds)
        check.table = {kind: tuple(part.tests.get(kind, ())) for kind in KINDS if kind in part.kinds}
        check.is_plain = not any(check.table.values())
        part.state = 2


class _Keywords:
    """Reads the keywords of one schema into its part."""

    def __init__(self, compiler: _Compiler, part: _Part, schema: dict[str, Any], at: str, depth: int) -> None:
        self.compiler, self.part, self.schema, self.at, self.depth = compiler, part, schema, at, depth

    def read(self) -> None:
        schema, part = self.schema, self.part
        for keyword in schema:
            _expect(isinstance(keyword, str), "its keywords are strings", self.at)
            if keyword in _UNSUPPORTED:
                raise _unusable(f"{keyword} can't be checked here", self.at)
        dialect = schema.get("$schema", "https://json-schema.org/")
        _expect(isinstance(dialect, str) and "//json-schema.org/" in dialect[:30], "$schema is not known here", self.at)
        extra = schema.get("x-ebus", {})
        _expect(isinstance(extra, dict), "x-ebus is an object", self.at)
        self._kinds(extra)
        self._numbers(extra)
        self._strings(extra)
        self._arrays()
        self._objects(extra)
        if "enum" in schema or "const" in schema:
            values = schema["enum"] if "enum" in schema else [schema["const"]]
            _expect(isinstance(values, list), "enum is an array", self.at)
            part.kinds &= {type(value) for value in values}
            part.add(checks.one_of(values), *part.kinds)
            part.expected = part.expected or (names_of(part.kinds) if len(values) > 5 else "")
        self._combinations()

    def child(self, schema: Any, *steps: Any) -> Check:
        return self.compiler.part(schema, "/".join((self.at, *map(str, steps))), self.depth + 1)

    def same(self, schema: Any, *steps: Any) -> _Part:
        """The part of a schema that is about the same value."""
        found = self.compiler.compile(schema, "/".join((self.at, *map(str, steps))), self.depth + 1)
        self.part.same.append(found)
        return found

    def number(self, keyword: str, default: float, *, whole: bool = False) -> float:
        if keyword not in self.schema:
            return default
        found = self.schema[keyword]
        is_number = type(found) is int or (type(found) is float and math.isfinite(found))
        _expect(is_number, f"{keyword} is a number", self.at)
        _expect(not whole or (found >= 0 and found == int(found)), f"{keyword} is a whole number", self.at)
        return found  # type: ignore[no-any-return]

    # --- kinds ------------------------------------------------------------------------------------------------------

    def _kinds(self, extra: dict[str, Any]) -> None:
        schema, part = self.schema, self.part
        if "type" in schema:
            names = schema["type"]
            names = names if isinstance(names, list) else [names]
            _expect(bool(names), "type names one at least", self.at)
            part.kinds.clear()
            for name in names:
                _expect(isinstance(name, str) and name in _TYPES, f"there is no type {str(name)[:40]!r}", self.at)
                part.kinds |= set(_TYPES[name])
        is_string = str in part.kinds
        if is_string and schema.get("contentEncoding") == "base64":
            part.kinds = (part.kinds - {str}) | {bytes}
        elif is_string and schema.get("format") == "date-time" and extra.get("tz") is not False:
            part.kinds.add(datetime)
        if "ndarray" in extra:
            array = extra["ndarray"]
            _expect(isinstance(array, dict), "x-ebus.ndarray is an object", self.at)
            dtype, ndim = array.get("dtype"), array.get("ndim")
            _expect(dtype is None or isinstance(dtype, str), "a dtype is a string", self.at)
            _expect(ndim is None or type(ndim) is int, "ndim is a number", self.at)
            part.kinds = (part.kinds - {dict}) | {ArrayHead}
            part.add(checks.ndarray({"dtype": dtype, "ndim": ndim}), ArrayHead)
            part.expected = "ndarray" if part.kinds == {ArrayHead} else ""

    def _numbers(self, extra: dict[str, Any]) -> None:
        add, found = self.part.add, self.number
        for keyword, sign, compare in _COMPARISONS:
            if keyword in self.schema:
                limit = found(keyword, 0)
                add(checks.bound(compare(limit), f"a number {sign} {limit}"), int, float)
        if "multipleOf" in self.schema:
            of = found("multipleOf", 1)
            _expect(of > 0, "multipleOf is a number above 0", self.at)
            add(checks.multiple(of), int, float)
        if extra.get("finite"):
            add(checks.bound(math.isfinite, "a finite number"), float)

    def _strings(self, extra: dict[str, Any]) -> None:
        schema, part, number = self.schema, self.part, self.number
        low, high = number("minLength", 0, whole=True), number("maxLength", math.inf, whole=True)
        if low or high < math.inf:
            expected = f"a length of {low} to {high}" if high < math.inf else f"a length of at least {low}"
            part.add(checks.bound(lambda text: low <= len(text) <= high, expected), str)
            part.add(checks.bound(lambda data: low <= (len(data) + 2) // 3 * 4 <= high, expected), bytes)
        least, most = extra.get("minBytes", 0), extra.get("maxBytes", math.inf)
        _expect(type(least) is int and (most == math.inf or type(most) is int), "a length is a number", self.at)
        if least or most < math.inf:
            part.add(checks.bound(lambda data: least <= len(data) <= most, f"{least} to {most} bytes"), bytes)
        if "pattern" in schema:
            source = schema["pattern"]
            part.add(checks.matches(self.compiler.pattern(source, self.at), source), str)
        format_ = schema.get("format")
        _expect(format_ is None or isinstance(format_, str), "format is a string", self.at)
        holds = FORMATS.get(format_ or "")
        if holds is not None and str in part.kinds:
            name = NAMES.get(str(format_), str(format_))
            zone = extra.get("tz") if format_ in ("date-time", "time") else None
            part.add(checks.formatted(holds, name), str)
            if zone is not None:
                said = f"{name} {'with' if zone else 'without'} a time zone"
                part.add(checks.bound(lambda text: has_zone(text, str(format_)) is bool(zone), said), str)
            if part.kinds <= {str, datetime}:
                part.expected = name
        elif part.kinds == {bytes}:
            part.expected = "bytes"

    # --- containers -------------------------------------------------------------------------------------------------

    def _arrays(self) -> None:
        schema, part, number = self.schema, self.part, self.number
        first = schema.get("prefixItems", [])
        _expect(isinstance(first, list), "prefixItems is an array", self.at)
        rest = schema.get("items", True)
        low, high = number("minItems", 0, whole=True), number("maxItems", math.inf, whole=True)
        unique = schema.get("uniqueItems", False) is True
        heads = [self.child(item, "prefixItems", i) for i, item in enumerate(first)]
        each = None if rest is True or rest == {} else self.child(rest, "items")
        if heads or each is not None or low or high < math.inf or unique:
            part.add(checks.array(heads, each, int(low), high, unique=unique), list)
        if "contains" in schema:
            least, most = number("minContains", 1, whole=True), number("maxContains", math.inf, whole=True)
            part.add(checks.contains(self.child(schema["contains"], "contains"), int(least), most), list)

    def _objects(self, extra: dict[str, Any]) -> None:
        schema, part, number = self.schema, self.part, self.number
        if dict not in part.kinds or not ("type" in schema or _OBJECT & schema.keys() or "keys" in extra):
            return
        if extra.get("keys") == {} and not _OBJECT & schema.keys():
            return  # any map
        properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        required, rest = schema.get("required", []), schema.get("additionalProperties", True)
        dependent = schema.get("dependentRequired", {})
        for name, found in (
            ("properties", properties),
            ("patternProperties", patterns),
            ("dependentRequired", dependent),
        ):
            _expect(isinstance(found, dict), f"{name} is an object", self.at)
        for names in (required, *dependent.values()):
            _expect(
                isinstance(names, list) and all(isinstance(each, str) for each in names), "names are strings", self.at
            )
        keys = extra.get("keys", schema.get("propertyNames"))
        others = None if rest is True or rest == {} else self.child(rest, "additionalProperties")
        if others is not None and rest is False:
            self.compiler.parts[-1].expected = "no property of that name"
        fields = checks.Fields(
            {name: self.child(each, "properties", name) for name, each in properties.items()},
            [
                (self.compiler.pattern(name, self.at), self.child(each, "patternProperties", name))
                for name, each in patterns.items()
            ],
            others,
            None if keys is None else self.child(keys, "keys"),
            tuple(dict.fromkeys(required)),
            int(number("minProperties", 0, whole=True)),
            number("maxProperties", math.inf, whole=True),
        )
        part.add(fields, dict)
        if dependent:
            part.add(checks.needs_with(dependent), dict)
        for name in required:
            if isinstance(each := properties.get(name), dict):
                values = each.get("enum", [each.get("const")])
                if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
                    part.check.tags[name] = frozenset(values)

    # --- combinations -----------------------------------------------------------------------------------------------

    def _combinations(self) -> None:
        schema, part = self.schema, self.part
        if "$ref" in schema:
            found = self.compiler.reference(schema["$ref"], self.at)
            part.same.append(found)
            part.combine.append(lambda: _add_all(part, [found]))
        for keyword in ("allOf", "anyOf", "oneOf"):
            if keyword in schema:
                branches = schema[keyword]
                _expect(isinstance(branches, list) and bool(branches), f"{keyword} is an array of schemas", self.at)
                parts = [self.same(each, keyword, i) for i, each in enumerate(branches)]
                part.combine.append(_combination(keyword, part, parts))
        if "not" in schema:
            other = self.same(schema["not"], "not").check
            part.combine.append(lambda: part.add(checks.not_(other), *part.kinds))
        if "if" in schema:
            condition = self.same(schema["if"], "if").check
            then, otherwise = (
                self.same(schema[each], each).check if each in schema else None for each in ("then", "else")
            )
            part.combine.append(lambda: part.add(checks.if_(condition, then, otherwise), *part.kinds))


def _combination(keyword: str, part: _Part, others: list[_Part]) -> Callable[[], None]:
    match keyword:
        case "allOf":
            return lambda: _add_all(part, others)
        case "anyOf":
            return lambda: _add_any(part, others, exactly_one=False)
    return lambda: _add_any(part, others, exactly_one=True)


def _add_all(part: _Part, others: list[_Part]) -> None:
    for other in others:
        part.kinds &= set(other.check.table)
        part.expected = part.expected or other.check.expected
        part.check.tags |= other.check.tags
        for kind, tests in other.check.table.items():
            if len(others) == 1:
                part.tests.setdefault(kind, []).extend(tests)
            elif tests:
                part.add(other.check.find, kind)


def _add_any(part: _Part, others: list[_Part], *, exactly_one: bool) -> None:
    part.kinds &= {kind for other in others for kind in other.check.table}
    expected = _names(others)
    part.expected = part.expected or expected
    for kind in part.kinds:
        branches = [other.check for other in others if kind in other.check.table]
        if exactly_one and not checks.are_told_apart(branches, kind):
            part.add(checks.exactly_one_of(branches, expected), kind)
        elif len(branches) == 1 and not exactly_one:
            part.tests.setdefault(kind, []).extend(branches[0].table[kind])
        else:
            part.add(checks.any_of(branches, expected, kind), kind)


def _names(parts: Iterable[_Part]) -> str:
    names = list(dict.fromkeys(part.check.expected for part in parts))
    return " or ".join(names[:5]) + (" …" if len(names) > 5 else "")


_COMPARISONS: tuple[tuple[str, str, Callable[[float], Callable[[Any], bool]]], ...] = (
    ("minimum", ">=", lambda limit: lambda value: value >= limit),
    ("maximum", "<=", lambda limit: lambda value: value <= limit),
    ("exclusiveMinimum", ">", lambda limit: lambda value: value > limit),
    ("exclusiveMaximum", "<", lambda limit: lambda value: value < limit),
)


def _expect(holds: bool, what: str, at: str) -> None:
    if not holds:
        raise _unusable(what, at)


def _unusable(why: str, at: str) -> SpecConflict:
    return SpecConflict(f"the type's JSON Schema can't be used: {why} (at {at[:120]}).")
