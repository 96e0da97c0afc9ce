# ruff: noqa: E501 (tables)
"""Patterns: what Python's engine finds, in time that is linear in the text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebus_jupyter.core.protocol.meter import Meter, Overrun
from ebus_jupyter.core.protocol.patterns import Pattern

PATTERNS = [
    r"^[\w.+-]+@[\w-]+\.[\w.-]+$", r"^\d{4}-\d{2}$", "^(a+)+$", "^a{0,255}$", "foo", ".*foo.*", "^(?i:abc)x?$", r"^\w+\s\d*$",
    "(?:^|,)x", "", "^$", "a|", "[^a]b", "^(a|ab)(c|bcd)$", r"\w\s+\d", r"^(\d+(\.\d+)?|\.\d+)$", "^(a?b?)*c", "^(a?|b?){5}$",
    "^((a|b)*c){2,}$", "(?s)a.b", "a.b", r"^[\D]+$", "x*?y+?", "^é+$", "(a*)*$", r"^(?:[a-c]|b)+$",
]  # fmt: skip
PIECES = ["a", "b", "c", "x", "y", "foo", "1", ".", "@", " ", "é", "\n", ",", "-", "AB", "٣"]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PATTERNS), st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_pattern_finds_what_python_finds(source: str, text: str) -> None:
    if not text.endswith("\n"):
        assert Pattern(source).search(text, Meter(100_000)) is (re.search(source, text) is not None)


PARTS = st.sampled_from(["a", "b", "[ab]", ".", r"\w", "(a|b)", "(a|ab)", "^", "$", "(?:ab?)"])
REPEATS = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,3}", "*?"])


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(PARTS, REPEATS), max_size=4).map(lambda parts: "".join(a + (b if a not in "^$" else "") for a, b in parts)),
    st.text("abc", max_size=7),
)  # fmt: skip
def test_random_pattern_finds_what_python_finds(source: str, text: str) -> None:
    if re.search(r"[$].*[$]|\^.*\^|[^^]\^|\$.", source):
        return  # an end of the text is met once
    assert Pattern(source).search(text, Meter(100_000)) is (re.search(source, text) is not None)


def test_dollar_is_the_very_end() -> None:
    assert Pattern("^a$").search("a", Meter(1))
    assert not Pattern("^a$").search("a\n", Meter(1))


@pytest.mark.parametrize(
    "source", ["^(a+)+$", "^(a|a)*$", "^(a*)*b", "(a|aa)+$", "^(a?){60}a{60}$", "(.*a){12}b", "^(a|b|ab)*c"]
)
def test_steps_are_linear_in_the_text(source: str) -> None:
    """A backtracking engine takes 2^n steps, or n^12, for these."""
    steps = []
    for length in (1_000, 2_000):
        meter = Meter(1 << 20)
        before = meter.left = 10_000_000
        Pattern(source).search("a" * length + "!", meter)
        steps.append(before - meter.left)
    assert steps[1] < 2.5 * steps[0] + 1_000


def test_pattern_stops_where_its_steps_are_spent() -> None:
    with pytest.raises(Overrun):
        Pattern("(.*a){40}b").search("a" * 100_000, Meter(100))


@pytest.mark.parametrize(
    "source",
    [r"(a)\1", "(?=a)", "(?<!a)b", "(?m)^a", r"\bx", "(", "a{5000}", "(?>a)", "x" * 2000, "((((a{9}){9}){9}){9}){9}", "a++"],
)  # fmt: skip
def test_pattern_that_may_take_more_is_refused(source: str) -> None:
    with pytest.raises(ValueError):
        Pattern(source)
