"""Bus specifications and access lists."""

from __future__ import annotations

import msgspec
import pytest

from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import BusSpec, Participant, allows
from ebus_jupyter.errors import SpecConflict, TooLarge

LIMITS = Limits(size=100, schema_bytes=200, recipients=2, name_chars=10)


def test_spec_has_the_given_fields_and_defaults():
    spec = BusSpec.create({"size": 5, "retain": "latest"}, LIMITS)
    assert (spec.size, spec.retain, spec.schema, spec.writers) == (5, "latest", None, None)


@pytest.mark.parametrize(
    "given",
    [
        {"colour": "red"},
        {"maker": "alice"},
        {"size": "many"},
        {"retain": "everything"},
        {"readers": "alice"},
        {"schema": {"x": msgspec.msgpack.Ext(9, b"")}},
        {"schema": {(): 1}},
    ],
)
def test_invalid_spec_raises_spec_conflict(given):
    with pytest.raises(SpecConflict):
        BusSpec.create(given, LIMITS)


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ({"size": 0}, "size"),
        ({"size": -5}, "size"),
        ({"size": 101}, "size"),
        ({"schema": {"description": "x" * 200}}, "schema_bytes"),
        ({"emits": {"description": "x" * 200}}, "schema_bytes"),
        ({"type": "x" * 300}, "schema_bytes"),
        ({"readers": ["a", "b", "c"]}, "recipients"),
        ({"writers": ["a", "b", "c"]}, "recipients"),
        ({"writers": ["a" * 11]}, "name_chars"),
    ],
)
def test_law_8_spec_field_over_its_bound_names_the_limit(given, limit):
    with pytest.raises(TooLarge) as refused:
        BusSpec.create(given, LIMITS)
    assert refused.value.limit == limit


def test_second_opener_agrees_or_sees_both_specs():
    spec = BusSpec.create({"size": 5, "readers": ["bob"]}, LIMITS)
    spec.join({}, "votes")
    spec.join({"size": 5, "readers": ["bob"]}, "votes")
    with pytest.raises(SpecConflict, match="size is 5, you asked for 4") as conflict:
        spec.join({"size": 4, "readers": ["bob"]}, "votes")
    assert (conflict.value.given, conflict.value.existing) == ({"size": 4}, {"size": 5})


def test_greater_size_is_a_compatible_change():
    spec = BusSpec.create({"size": 5}, LIMITS)
    assert spec.join({"size": 5}, "votes") is spec
    larger = spec.join({"size": 8}, "votes")
    assert (larger.size, larger.first_size) == (8, 5)
    assert larger.join({"size": 5}, "votes") is larger, "as an older program asks for it"
    with pytest.raises(SpecConflict):
        larger.join({"size": 4}, "votes")


def test_type_conflict_says_where_and_who_would_break():
    def vote(**properties):
        return {"type": "object", "title": "Vote", "properties": properties, "required": sorted(properties)}

    spec = BusSpec.create({"type": "Vote", "schema": vote(choice={"type": "string"})}, Limits())
    assert (
        spec.join({"type": "Ballot", "schema": {**vote(choice={"type": "string"}), "title": "Ballot"}}, "votes") is spec
    )
    with pytest.raises(SpecConflict, match=r"at \$\.choice it is string, and would be integer") as conflict:
        spec.join({"type": "Vote", "schema": vote(choice={"type": "integer"})}, "votes")
    assert conflict.value.path == "$.choice"
    assert "delete the bus" in str(conflict.value)
    with pytest.raises(SpecConflict, match="readers of the new type could not read"):
        spec.join({"type": "Vote", "schema": vote(choice={"type": "string"}, note={"type": "string"})}, "votes")


@pytest.mark.parametrize(
    "schema", [5, "x", {"$ref": "#/a/b"}, {"$ref": 5}, {"properties": 5, "type": "object"}, {"anyOf": 1}]
)
def test_second_opener_with_a_malformed_schema_conflicts(schema):
    first = {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}]}}}
    for existing in (first, {"anyOf": [first]}):
        with pytest.raises(SpecConflict):
            BusSpec.create({"schema": existing}, Limits()).join({"schema": schema}, "votes")


@pytest.mark.parametrize("given", [{"maker": "eve"}, {"colour": 1}, {"schema": {"x": msgspec.msgpack.Ext(9, b"")}}])
def test_second_opener_with_invalid_fields_conflicts(given):
    with pytest.raises(SpecConflict):
        BusSpec.create({}, LIMITS).join(given, "votes")


def test_access_list_admits_named_users_and_groups():
    bob = Participant("b", "page", "bob", groups=("staff",))
    assert allows(None, bob)
    assert allows(("bob",), bob)
    assert allows(("group:staff",), bob)
    assert not allows(("alice", "staff", "group:bob"), bob)
    assert not allows((), bob)
    assert allows((), Participant("s", "server", "server"))
