# ruff: noqa: E501 (tables)
"""JSON Schemas become checks: their meaning on the wire, and what they may cost."""

from __future__ import annotations

from typing import Any

import pytest

from ebus_jupyter.core.protocol import compiler
from ebus_jupyter.core.protocol.compiler import compile_schema
from ebus_jupyter.core.protocol.meter import MOST_STEPS, Meter, Overrun
from ebus_jupyter.core.protocol.validation import Validator
from ebus_jupyter.errors import SpecConflict, TypeMismatch
from tests.core.play import pack

VOTE = {"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}}, "required": ["n"]}


def found(schema: Any, value: Any) -> str:
    """The path at which ``value`` does not match; "" where it does."""
    mismatch = compile_schema(schema).find(value, Meter(1_000))
    return "" if mismatch is None else mismatch.path


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({}, {1: b"x"}, None),
        ({"type": ["integer", "null"]}, None, 1.0),
        ({"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5}, 1.5, float("nan")),
        ({"enum": [1, "a", None, {"b": [1]}]}, {"b": [1]}, True),
        ({"const": 1}, 1, 1.0),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, 3, 2),
        ({"anyOf": [{"type": "string"}, {"minimum": 3, "type": "integer"}]}, "x", 2),
        ({"oneOf": [{"type": "integer"}, {"minimum": 3}]}, 2, 3),
        ({"not": {"type": "string"}}, 2, "x"),
        ({"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"type": "null"}}, "ab", 1),
        ({"type": "string", "minLength": 2, "maxLength": 3}, "éé", "é"),
        ({"type": "string", "contentEncoding": "base64", "maxLength": 4}, b"abc", b"abcd"),
        ({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, [1, "a"], [1, 2]),
        ({"uniqueItems": True}, [1, 1.0, True, "1"], [[1], [1]]),
        ({"contains": {"type": "integer"}, "maxContains": 1}, ["a", 1], [1, 2]),
        ({"minItems": 1, "maxItems": 2}, [1], [1, 2, 3]),
        ({**VOTE, "additionalProperties": False}, {"n": 1}, {"n": 1, "x": 1}),
        ({"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": {"type": "string"}}, {"x": 1, "y": "a"}, {"x": "a"}),
        ({"propertyNames": {"maxLength": 2}}, {"ab": 1}, {"abc": 1}),
        ({"minProperties": 1, "dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 2}, {"a": 1}),
        ({"type": "object", "x-ebus": {"keys": {"type": "integer"}}}, {1: 2}, {"1": 2}),
        ({"items": {"$ref": "#"}, "type": "array"}, [[], [[]]], [[1]]),
        (False, None, 1),
    ],
)  # fmt: skip
def test_keyword_means_what_json_schema_says(schema: Any, good: Any, bad: Any) -> None:
    if schema is not False:
        assert found(schema, good) == ""
    if bad is not None:
        assert found(schema, bad).startswith("$")


def test_mismatch_in_a_tagged_union_is_that_of_its_branch() -> None:
    def branch(tag: str, **more: Any) -> Any:
        return {"type": "object", "properties": {"type": {"enum": [tag]}, **more}, "required": ["type"]}

    union = {"anyOf": [branch(str(i), n={"type": "integer"}) for i in range(100)]}
    assert found(union, {"type": "7", "n": 1}) == ""
    assert found(union, {"type": "7", "n": "x"}) == "$.n"
    assert found(union, {"type": "x"}) == "$.type"
    meter = Meter(0)
    before = meter.left
    compile_schema(union).find({"type": "99", "n": 1}, meter)
    assert before - meter.left < 10, "the branch is known from the tag"


@pytest.mark.parametrize(
    "schema",
    [
        {"unevaluatedProperties": False}, {"$dynamicRef": "#x"}, {"items": [{}]}, {"$ref": "#/$defs/none"}, {"$ref": "#name"},
        {"required": "a"}, {"minLength": -1}, {"minimum": float("nan")}, {"anyOf": []}, {"type": []}, {"enum": 1}, 5, {"not": 1},
        {"x-ebus": 1}, {"x-ebus": {"ndarray": 1}}, {"properties": {"a": 1}}, {"multipleOf": 0}, {"$ref": "#"}, {1: 2},
        {"allOf": [{"$ref": "#"}]}, {"anyOf": [{"not": {"$ref": "#/anyOf/0"}}]}, {"format": 1}, {"pattern": 1}, {"maxItems": "x"},
    ],
)  # fmt: skip
def test_what_cannot_be_checked_is_refused(schema: Any) -> None:
    with pytest.raises(SpecConflict, match="can't be used"):
        compile_schema(schema)


# --- budgets ----------------------------------------------------------------------------------------------------------


def fan_out(keyword: str, depth: int = 26, width: int = 2) -> Any:
    defs: Any = {f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}] * width} for i in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": defs | {f"d{depth}": {"type": "integer"}}}


def nested(depth: int, keyword: str) -> Any:
    schema: Any = {}
    for _ in range(depth):
        schema = {keyword: schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        *[fan_out(keyword) for keyword in ("allOf", "anyOf", "oneOf")],
        {"anyOf": [{"required": [str(i)]} for i in range(1_000)]},
        {"allOf": [{"pattern": f"^{i}"} for i in range(200)]},
        {"properties": {str(i): {"pattern": f"^x{i}[a-z]{{40}}$"} for i in range(60)}},
        {"properties": {str(i): {"pattern": f"^x{i}[a-z]{{0,900}}$"} for i in range(5)}},
        {"properties": {str(i): {} for i in range(compiler.MAX_NODES)}},
        nested(100, "items"), nested(100, "not"), nested(5_000, "items"),
        {"$ref": "#/$defs/a", "$defs": {"a": {"if": {"$ref": "#/$defs/b"}}, "b": {"not": {"$ref": "#/$defs/a"}}}},
    ],
)  # fmt: skip
def test_schema_of_too_much_work_is_refused_when_it_is_opened(schema: Any) -> None:
    with pytest.raises(SpecConflict, match="can't be used"):
        compile_schema(schema)


def test_long_chain_of_types_is_no_nesting() -> None:
    defs: Any = {f"d{i}": {"properties": {"next": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(300)} | {"d300": {}}
    compile_schema({"$ref": "#/$defs/d0", "$defs": defs})


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"items": {"anyOf": [{"required": [str(i)]} for i in range(400)] + [{"type": "object"}]}}, [{}] * 100_000),
        ({"items": {"oneOf": [{"minimum": i} for i in range(400)]}}, [0] * 100_000),
        ({"items": {"allOf": [{"not": {"const": i}} for i in range(200)]}}, [500] * 100_000),
        ({"patternProperties": {f"{i}$": {} for i in range(50)}}, {str(i): 0 for i in range(50_000)}),
        ({"items": {"contains": {"items": {"contains": {"const": 1}}}}}, [[[0] * 100] * 100] * 100),
        ({"items": {"pattern": "(.*a){40}b"}}, ["a" * 1_000] * 100),
    ],
)  # fmt: skip
def test_check_of_a_value_stops_at_its_budget(schema: Any, value: Any) -> None:
    check, meter = compile_schema(schema), Meter(len(pack(value)))
    assert meter.left <= MOST_STEPS
    try:
        check.find(value, meter)
    except Overrun:
        with pytest.raises(TypeMismatch, match="too much work"):
            Validator.of(schema).check(pack(value), "bus")


def test_deeply_nested_value_is_refused_the_same_everywhere() -> None:
    schema = {"items": {"$ref": "#"}}
    deep: Any = []
    for _ in range(250):
        deep = [deep]
    with pytest.raises(TypeMismatch, match="too much work"):
        Validator.of(schema).check(pack(deep), "bus")
