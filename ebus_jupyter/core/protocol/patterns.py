"""The patterns of a schema, matched in time that is linear in the text.

Patterns come from clients. A backtracking engine, such as Python's, may take exponential time; here a pattern becomes an
automaton of its positions (Glushkov's), whose size is bounded when the bus is opened. Where each character leaves one
position to go to, and one way of getting there, Python's engine has nothing to backtrack to, and runs it; else the
automaton is run, and each step is counted.

A pattern means what it means to Python's `re.search`, except that ``$`` is the very end of the text, as everywhere outside
Python. What no automaton can do (references to groups, look-around, word boundaries) is refused.
"""

from __future__ import annotations

import re
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from .meter import Meter

PATTERN_CHARS = 1_000
"""The length of one pattern."""

POSITIONS = 1_000
"""The size of one pattern, repetitions written out."""

_LOW = 256
_START, _END = -1, -2  # the text's ends, as the automaton reads them
_REFUSED_FLAGS = re.MULTILINE | re.LOCALE
_MAX_REPEAT: int = ops.MAXREPEAT


class _Symbols(NamedTuple):
    """The characters at one position.

    Attributes:
        op: The node of Python's parser.
        arg: Its argument.
        flags: The flags in force.
    """

    op: Any
    arg: Any
    flags: int

    def holds(self, symbol: int) -> bool:
        if symbol < 0 or self.op is ops.AT:
            return self.op is ops.AT and bool(self.arg == symbol)
        if self.flags & re.IGNORECASE:
            char = chr(symbol)
            forms = {ord(form) for form in (char, char.lower(), char.upper()) if len(form) == 1}
            return self._holds_any(forms)
        return self._holds_any((symbol,))

    def _holds_any(self, forms: Any) -> bool:
        match self.op:
            case ops.LITERAL:
                return self.arg in forms
            case ops.NOT_LITERAL:
                return self.arg not in forms
            case ops.ANY:
                return bool(self.flags & re.DOTALL) or 10 not in forms
            case ops.IN:
                negated = self.arg[0][0] is ops.NEGATE
                return negated is not any(_in_item(op, arg, form, self.flags) for op, arg in self.arg for form in forms)
        raise AssertionError(self.op)

    def high(self) -> str:
        """The characters beyond Latin-1: "" none, "w" word characters, "s" spaces, "*" others too."""
        match self.op:
            case ops.AT:
                return ""
            case ops.LITERAL:
                return "*" if self.arg >= _LOW or self.flags & re.IGNORECASE else ""
            case ops.IN if self.arg[0][0] is not ops.NEGATE and not self.flags & re.IGNORECASE:
                found = {_high_item(op, arg, self.flags) for op, arg in self.arg} - {""}
                return "" if not found else found.pop() if len(found) == 1 else "*"
        return "*"


def _in_item(op: Any, arg: Any, symbol: int, flags: int) -> bool:
    match op:
        case ops.LITERAL:
            return bool(arg == symbol)
        case ops.RANGE:
            return bool(arg[0] <= symbol <= arg[1])
        case ops.CATEGORY:
            return _in_category(arg, symbol, flags)
    return False  # NEGATE, which the caller has seen


def _in_category(category: Any, symbol: int, flags: int) -> bool:
    char = chr(symbol)
    is_known = symbol < 128 or not flags & re.ASCII
    match category:
        case ops.CATEGORY_DIGIT | ops.CATEGORY_NOT_DIGIT:
            found = is_known and char.isdecimal()
        case ops.CATEGORY_SPACE | ops.CATEGORY_NOT_SPACE:
            found = is_known and char.isspace()
        case _:
            found = is_known and (char.isalnum() or char == "_")
    return found is not (category in (ops.CATEGORY_NOT_DIGIT, ops.CATEGORY_NOT_SPACE, ops.CATEGORY_NOT_WORD))


def _high_item(op: Any, arg: Any, flags: int) -> str:
    match op:
        case ops.LITERAL:
            return "*" if arg >= _LOW else ""
        case ops.RANGE:
            return "*" if arg[1] >= _LOW else ""
    if arg in (ops.CATEGORY_DIGIT, ops.CATEGORY_WORD):
        return "" if flags & re.ASCII else "w"
    if arg is ops.CATEGORY_SPACE:
        return "" if flags & re.ASCII else "s"
    return "*"


class _Part(NamedTuple):
    """A part of the automaton: sets of positions, as bits."""

    nullable: bool
    first: int
    last: int
    length: float  # of the longest match


_EMPTY = _Part(True, 0, 0, 0)


class Pattern:
    """A pattern.

    Args:
        source: The regular expression.

    Attributes:
        positions: Its size.

    Raises:
        ValueError: It is no regular expression, is too large, or can't be matched in linear time.
    """

    __slots__ = (
        "_ambiguous",
        "_engine",
        "_first",
        "_follow",
        "_last",
        "_masks",
        "_nullable",
        "_symbols",
        "_text_end",
        "positions",
    )

    def __init__(self, source: str) -> None:
        if len(source) > PATTERN_CHARS:
            raise ValueError(f"a pattern has at most {PATTERN_CHARS} characters")
        try:
            tree = _parser.parse(source)
            engine = re.compile(source)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{source[:80]!r} is no regular expression that Python knows ({error})") from None
        self._symbols: list[_Symbols] = []
        self._follow: list[int] = []
        self._text_end = False
        self._ambiguous = False
        try:
            whole = self._sequence(tree, tree.state.flags)
        except RecursionError:
            raise ValueError(f"{source[:80]!r} is nested too deeply") from None
        self._nullable, self._first, self._last = whole.nullable, whole.first, whole.last
        self._masks: dict[int, int] = {}
        self.positions = len(self._symbols)
        anchored = all(self._symbols[i].arg == _START for i in _bits(whole.first) if self._symbols[i].op is ops.AT)
        anchored = anchored and all(self._symbols[i].op is ops.AT for i in _bits(whole.first)) and not whole.nullable
        is_short = anchored or whole.length <= 64
        self._engine = engine if is_short and self._is_deterministic() else None

    def search(self, text: str, meter: Meter) -> bool:
        """True if the pattern is found in ``text``. The work is taken from ``meter``."""
        if self._engine is not None and not (self._text_end and text.endswith("\n")):
            meter.spend(1 + len(text) // 8)
            return self._engine.search(text) is not None
        if self._nullable:
            return True
        current, first, last = 0, self._first, self._last
        unions: dict[int, int] = {0: first}
        for symbol in (_START, *map(ord, text), _END):
            candidates = unions.get(current)
            if candidates is None:
                meter.spend(current.bit_count())
                candidates = first
                for i in _bits(current):
                    candidates |= self._follow[i]
                unions[current] = candidates
            meter.spend(1)
            mask = self._masks.get(symbol)
            current = candidates & (self._mask(symbol, meter) if mask is None else mask)
            if current & last:
                return True
        return False

    def _mask(self, symbol: int, meter: Meter) -> int:
        """The positions at which the character may stand."""
        meter.spend(len(self._symbols))
        mask = 0
        for i, symbols in enumerate(self._symbols):
            if symbols.holds(symbol):
                mask |= 1 << i
        if symbol < _LOW:
            self._masks[symbol] = mask
        return mask

    # --- the automaton ----------------------------------------------------------------------------------------------

    def _position(self, op: Any, arg: Any, flags: int) -> _Part:
        if len(self._symbols) >= POSITIONS:
            raise ValueError(f"a pattern has at most {POSITIONS} positions, its repetitions written out")
        bit = 1 << len(self._symbols)
        self._symbols.append(_Symbols(op, arg, flags))
        self._follow.append(0)
        return _Part(False, bit, bit, 0 if op is ops.AT else 1)

    def _then(self, one: _Part, other: _Part) -> _Part:
        for i in _bits(one.last):
            if self._follow[i] & other.first:  # two ways from one character to the next, as in (a+)+
                self._ambiguous = True
            self._follow[i] |= other.first
        return _Part(
            one.nullable and other.nullable,
            one.first | (other.first if one.nullable else 0),
            other.last | (one.last if other.nullable else 0),
            one.length + other.length,
        )

    def _sequence(self, nodes: Any, flags: int) -> _Part:
        found = _EMPTY
        for op, arg in nodes:
            found = self._then(found, self._node(op, arg, flags))
        return found

    def _node(self, op: Any, arg: Any, flags: int) -> _Part:
        if flags & _REFUSED_FLAGS:
            raise ValueError("patterns can't have the flags m and L here")
        match op:
            case ops.LITERAL | ops.NOT_LITERAL | ops.ANY | ops.IN:
                return self._position(op, arg, flags)
            case ops.AT if arg in (ops.AT_BEGINNING, ops.AT_BEGINNING_STRING):
                return self._position(op, _START, flags)
            case ops.AT if arg in (ops.AT_END, ops.AT_END_STRING):
                self._text_end = self._text_end or arg is ops.AT_END
                return self._position(op, _END, flags)
            case ops.BRANCH:
                parts = [self._sequence(branch, flags) for branch in arg[1]]
                if sum(part.nullable for part in parts) > 1:
                    self._ambiguous = True
                return _Part(
                    any(part.nullable for part in parts),
                    _union(part.first for part in parts),
                    _union(part.last for part in parts),
                    max(part.length for part in parts),
                )
            case ops.SUBPATTERN:
                _, added, removed, nodes = arg
                return self._sequence(nodes, (flags | added) & ~removed)
            case ops.MAX_REPEAT | ops.MIN_REPEAT:
                low, high, nodes = arg
                return self._repeat(low, high, nodes, flags)
        raise ValueError(f"patterns can't use {str(op).lower()} here: it can't be matched in linear time")

    def _repeat(self, low: int, high: int, nodes: Any, flags: int) -> _Part:
        if (0 if high == _MAX_REPEAT else high) > POSITIONS or low > POSITIONS:
            raise ValueError(f"a pattern repeats something at most {POSITIONS} times")
        found = _EMPTY
        if high == _MAX_REPEAT:
            for _ in range(max(low - 1, 0)):
                found = self._then(found, self._sequence(nodes, flags))
            loop = self._sequence(nodes, flags)
            self._ambiguous = self._ambiguous or loop.nullable
            self._then(loop, loop)
            return self._then(found, _Part(loop.nullable or low == 0, loop.first, loop.last, float("inf")))
        for i in range(high, 0, -1):  # x{1,3} is x(x(x)?)?: after each x there is one choice only
            part = self._sequence(nodes, flags)
            self._ambiguous = self._ambiguous or part.nullable
            found = self._then(part, found)
            if i > low:
                found = found._replace(nullable=True)
        return found

    def _is_deterministic(self) -> bool:
        """True if no two positions that may come next take the same character: there is nothing to backtrack to."""
        if self._ambiguous:
            return False
        low = [sum(1 << char for char in range(_LOW) if symbols.holds(char)) for symbols in self._symbols]
        high = [symbols.high() for symbols in self._symbols]
        for choices in {self._first, *self._follow}:
            seen, seen_high = 0, ""
            for i in _bits(choices):
                if seen & low[i] or (seen_high and high[i] and {seen_high, high[i]} != {"w", "s"}):
                    return False
                seen |= low[i]
                seen_high = (seen_high and high[i] and "*") or seen_high or high[i]
        return True


def _bits(positions: int) -> Any:
    while positions:
        lowest = positions & -positions
        yield lowest.bit_length() - 1
        positions ^= lowest


def _union(sets: Any) -> int:
    found = 0
    for positions in sets:
        found |= positions
    return found
