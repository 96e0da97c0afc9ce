# ruff: noqa: UP045 (tables; a class made at run time has no |)
"""Types change and their bus stays: what is compatible, what is refused, and what is kept."""

from __future__ import annotations

from typing import Any, Optional

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebus_jupyter.core.protocol.codec import Codec
from ebus_jupyter.core.protocol.compiler import compile_schema
from ebus_jupyter.core.protocol.schema_change import IncompatibleError, joined
from ebus_jupyter.core.protocol.type_schema import type_schema
from ebus_jupyter.core.protocol.validation import Validator
from ebus_jupyter.errors import TypeMismatch
from tests.core.protocol.test_type_matrix import OWN, name


def struct(
    struct_name: str = "Vote", doc: str | None = None, closed: bool = False, tag: str | None = None, **fields: Any
) -> Any:
    """A Struct whose fields are types, or types with defaults."""
    made = [(each, *(given if isinstance(given, tuple) else (given,))) for each, given in fields.items()]
    found = msgspec.defstruct(struct_name, made, forbid_unknown_fields=closed, tag=tag, kw_only=True)  # type: ignore[arg-type]
    if doc is not None:
        found.__doc__ = doc
    return found


Old = struct(choice=str, weight=(float, 1.0))

EQUAL = [
    struct(doc="A vote.", choice=str, weight=(float, 1.0)),
    struct("Ballot", choice=str, weight=(float, 2.5)),
    struct(weight=(float, 1.0), choice=str),
]
ADDS = [
    struct(choice=str, weight=(float, 1.0), note=(str, "")),
    struct(choice=str, weight=(float, 1.0), more=(Optional[list[EQUAL[0]]], None)),
]
BREAKS = [
    (struct(choice=str, weight=(float, 1.0), note=str), "$.note", "readers of the new type could not read"),
    (struct(choice=(str, ""), weight=(float, 1.0)), "$.choice", "required by readers of the existing type"),
    (struct(choice=str, weight=float), "$.weight", "required now"),
    (struct(choice=int, weight=(float, 1.0)), "$.choice", "it is string, and would be integer"),
    (struct(choice=str, weight=(int, 1)), "$.weight", "it is number, and would be integer"),
    (struct(choice=Optional[str], weight=(float, 1.0)), "$.choice", "readers of one could not read"),
    (struct(choice=str, weight=(float, 1.0), closed=True), "$", "readers of one"),
    (struct(choice=str, weight=(float, 1.0), tag="vote"), "$.type", "required now"),
    (list[str], "$", "readers of one"),
]


@pytest.mark.parametrize("new", EQUAL)
def test_words_for_people_mean_nothing(new: Any) -> None:
    old = type_schema(Old)
    assert joined(old, type_schema(new)) is old


@pytest.mark.parametrize("type_", [type_ for type_, _ in OWN if type_ is not Any], ids=name)
def test_type_is_compatible_with_itself(type_: Any) -> None:
    schema = Codec(type_).schema
    assert joined(schema, msgspec.json.decode(msgspec.json.encode(schema))) is schema


@pytest.mark.parametrize("new", ADDS)
def test_new_optional_field_is_kept_and_held_to_its_type(new: Any) -> None:
    both = joined(type_schema(Old), type_schema(new))
    assert both is not None
    added = ({*type_schema(new)["$defs"]["Vote"]["properties"]} - {"choice", "weight"}).pop()
    Validator.of(both).check(msgspec.msgpack.encode({"choice": "x"}), "votes")
    with pytest.raises(TypeMismatch, match=f"[$][.]{added}"):
        Validator.of(both).check(msgspec.msgpack.encode({"choice": "x", added: 5}), "votes")
    for schema in (type_schema(Old), type_schema(new)):
        assert joined(both, schema) is both, "both types open it from now on, in any order"


def test_field_of_the_existing_type_stays_where_the_given_one_has_it_not() -> None:
    schema = type_schema(Old)
    assert joined(schema, type_schema(struct(choice=str))) is schema


@pytest.mark.parametrize(("new", "path", "why"), BREAKS)
def test_change_that_breaks_a_reader_is_refused_with_its_path(new: Any, path: str, why: str) -> None:
    with pytest.raises(IncompatibleError, match=why) as refused:
        joined(type_schema(Old), type_schema(new))
    assert refused.value.path == path


def test_closed_type_takes_no_new_field() -> None:
    with pytest.raises(IncompatibleError, match="take no fields that they don't know"):
        joined(type_schema(struct(a=int, closed=True)), type_schema(struct(a=int, b=(int, 0), closed=True)))


def test_union_keeps_its_members() -> None:
    cat, dog, cow = struct("Cat", tag="cat", n=int), struct("Dog", tag="dog"), struct("Cow", tag="cow")
    old = type_schema(cat | dog)
    assert joined(old, type_schema(dog | cat)) is old
    both = joined(old, type_schema(struct("Cat", tag="cat", n=int, m=(int, 0)) | dog))
    assert both is not None and both is not old
    with pytest.raises(IncompatibleError, match="Cow is new: readers of the existing type"):
        joined(old, type_schema(cat | dog | cow))
    with pytest.raises(IncompatibleError, match="readers of"):
        joined(old, type_schema(cat))


def test_nested_change_is_found() -> None:
    def outer(inner: Any) -> Any:
        return type_schema(struct("Outer", votes=dict[str, list[inner]]))

    assert joined(outer(Old), outer(ADDS[0])) is not outer(Old)
    with pytest.raises(IncompatibleError) as refused:
        joined(outer(Old), outer(struct(choice=int, weight=(float, 1.0))))
    assert refused.value.path == "$.votes.*[].choice"


class Tree(msgspec.Struct):
    n: int
    kids: list[Tree] = []


def test_recursive_type_takes_a_new_field() -> None:
    old = type_schema(Tree)
    new = msgspec.json.decode(msgspec.json.encode(old))
    new["$defs"]["Tree"]["properties"]["note"] = {"type": "string"}
    both = joined(old, new)
    assert both is not None
    Validator.of(both).check(msgspec.msgpack.encode(Tree(1, [Tree(2)])), "bus")
    with pytest.raises(TypeMismatch, match=r"\$\.kids\[0\]\.note"):
        Validator.of(both).check(msgspec.msgpack.encode({"n": 1, "kids": [{"n": 2, "note": 5}]}), "bus")
    assert joined(both, old) is both


def test_pydantic_model_takes_a_new_field() -> None:
    old = pydantic.create_model("M", a=(int, ...))
    new = pydantic.create_model("M", a=(int, ...), b=(str | None, None))
    both = joined(Codec(old).schema, Codec(new).schema)
    assert both is not None
    assert both["properties"].keys() == {"a", "b"}


def test_any_and_a_type_are_no_versions_of_each_other() -> None:
    for pair in ((None, type_schema(int)), (type_schema(int), None)):
        with pytest.raises(IncompatibleError):
            joined(*pair)


FIELDS = st.fixed_dictionaries(
    {},
    optional={each: st.sampled_from([int, str, (int, 0), (str, ""), (float, 0.0), (list[int], [])]) for each in "abc"},
)


@settings(max_examples=300, deadline=None)
@given(FIELDS, FIELDS)
def test_joined_types_read_each_other(first: Any, second: Any) -> None:
    """What a writer of either type writes passes the schema of both, and is read by readers of either."""
    types = [struct(**first), struct(**second)]
    try:
        both = joined(*[type_schema(type_) for type_ in types])
    except IncompatibleError:
        return
    samples = {int: 1, str: "x", float: 1.5, list[int]: [1]}
    for fields in (first, second):
        full = {each: samples[given[0] if isinstance(given, tuple) else given] for each, given in fields.items()}
        least = {each: value for each, value in full.items() if not isinstance(fields[each], tuple)}
        for value in (full, least):
            Validator.of(both).check(msgspec.msgpack.encode(value), "bus")
            for type_ in types:
                msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type_)
    compile_schema(both)
