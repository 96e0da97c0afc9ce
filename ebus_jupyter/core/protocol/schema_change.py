"""A type changes and its bus stays: two schemas compared by meaning, and the schema of both.

A named bus outlives the types of its readers and writers. Words for people (docstrings, titles, defaults), the order of
fields and the names of types mean nothing to it. A change is compatible if nobody breaks: readers of the old type read what
writers of the new one write, and readers of the new type read what is in the log. So a field may be added or left out where it
is optional, and the object takes unknown ones. Everything else is refused with its path, and with who would break.

What is kept is the schema of both types: a field that only one of them has is still held to its type, so that the readers who
know it can read it.
"""

from __future__ import annotations

from typing import Any

import msgspec

_ABOUT = frozenset(
    (
        "title",
        "description",
        "default",
        "examples",
        "$comment",
        "$schema",
        "deprecated",
        "readOnly",
        "writeOnly",
        "$defs",
    )
)
_MEMBERS = frozenset(("properties", "required"))
_MOST_PAIRS = 4_000


class IncompatibleError(Exception):
    """The types of two openers can't share a bus.

    Args:
        path: Where they differ.
        why: What would break.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"at {path[:200]} {why}")
        self.path = path
        self.why = why


def joined(existing: dict[str, Any] | None, given: dict[str, Any] | None) -> dict[str, Any] | None:
    """The schema of a bus that takes both the existing type and the given one.

    Args:
        existing: The bus's schema.
        given: The schema that an opener gives.

    Returns:
        ``existing`` itself, where it is the schema of both.

    Raises:
        IncompatibleError: A reader would break.
    """
    if existing is None or given is None:
        if existing == given:
            return existing
        who = "values of any type, which readers of one type can't read" if existing is None else "one type, not any"
        raise IncompatibleError("$", f"the bus takes {who}")
    join = _Join(existing, given)
    try:
        found = join.pair(existing, given, "$")
    except RecursionError:
        raise IncompatibleError("$", "the types are nested too deeply to be compared") from None
    except (LookupError, TypeError, ValueError, AttributeError):  # what was given is no schema
        raise IncompatibleError("$", "one of the two is no JSON Schema that can be used") from None
    if not join.adds:
        return existing
    return {**found, "$defs": join.named} if join.named else found


class _Join:
    """Makes the schema of both.

    Attributes:
        adds: True if it says something that the existing one does not.
        named: Its ``$defs``.
    """

    def __init__(self, existing: dict[str, Any], given: dict[str, Any]) -> None:
        self.adds = False
        self.named: dict[str, Any] = {}
        self._existing, self._given = existing, given
        self._names: dict[Any, str] = {}
        self._left = _MOST_PAIRS

    def pair(self, old: Any, new: Any, path: str) -> Any:
        """The schema of ``old``, a part of the existing one, and of ``new``, a part of the given one."""
        self._left -= 1
        if self._left < 0:
            raise IncompatibleError(path, "the types are too large to be compared")
        if isinstance(old, dict) and isinstance(new, dict) and ("$ref" in old or "$ref" in new):
            return self._refer(old, new, path)
        old, new = ({} if each is True else each for each in (old, new))
        if not isinstance(old, dict) or not isinstance(new, dict):
            if old == new:
                return old
            raise _broken(path, old, new)
        says, asks = _meaning(old), _meaning(new)
        found = {word: old[word] for word in old.keys() & _ABOUT - {"$defs"}}
        if _is_object(says) and _is_object(asks):
            return found | self._objects(says, asks, path)
        for word in ("anyOf", "oneOf", "allOf"):
            if word in says and word in asks:
                found[word] = self._branches(says.pop(word), asks.pop(word), path)
        if "prefixItems" in says and "prefixItems" in asks:
            found["prefixItems"] = self._items(says, asks, path)
        for word in ("items", "additionalProperties", "contains", "propertyNames", "not"):
            if word in says and word in asks:
                step = "[]" if word == "items" else ".*" if word == "additionalProperties" else ""
                found[word] = self.pair(says.pop(word), asks.pop(word), path + step)
        if not _same(says, asks):
            raise _broken(path, says, asks)
        return found | says

    # --- references -------------------------------------------------------------------------------------------------

    def _refer(self, old: dict[str, Any], new: dict[str, Any], path: str) -> dict[str, Any]:
        key = old.get("$ref"), new.get("$ref"), "" if "$ref" in old and "$ref" in new else path
        name = self._names.get(key)
        if name is None:
            name = self._name(key)
            self.named[name] = {}  # the place is taken, should the type contain itself
            self.named[name] = self.pair(_target(self._existing, old), _target(self._given, new), path)
        return {word: old[word] for word in old.keys() & _ABOUT - {"$defs"}} | {"$ref": f"#/$defs/{name}"}

    def _name(self, key: tuple[Any, Any, str]) -> str:
        plain = str(key[0] or key[1]).rpartition("/")[2] or "Value"
        name, n = plain, 1
        while name in self.named:
            n += 1
            name = f"{plain}_{n}"
        self._names[key] = name
        return name

    def _take(self, new: Any) -> Any:
        """A part that only the given schema has."""
        self.adds = True
        if isinstance(new, list):
            return [self._take(each) for each in new]
        if not isinstance(new, dict):
            return new
        self._left -= 1
        if self._left < 0:
            raise IncompatibleError("$", "the types are too large to be compared")
        found = {
            word: self._take(each) for word, each in new.items() if word not in ("$ref", "enum", "const", "default")
        }
        found |= {word: new[word] for word in ("enum", "const", "default") if word in new}
        ref = new.get("$ref")
        if ref is not None:
            key = None, ref, "given"
            if key not in self._names:
                name = self._name(key)
                self.named[name] = {}
                self.named[name] = self._take(_target(self._given, {"$ref": ref}))
            found["$ref"] = f"#/$defs/{self._names[key]}"
        return found

    # --- containers -------------------------------------------------------------------------------------------------

    def _objects(self, old: dict[str, Any], new: dict[str, Any], path: str) -> dict[str, Any]:
        olds, news = old.get("properties", {}), new.get("properties", {})
        needed, wanted = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(needed ^ wanted):
            if name in wanted:
                raise IncompatibleError(
                    f"{path}.{name}",
                    f"`{name}` is required now: readers of the new type could not read what was written without it",
                )
            raise IncompatibleError(
                f"{path}.{name}",
                f"`{name}` is required by readers of the existing type, and would not be written any more",
            )
        is_open = "additionalProperties" not in old and "patternProperties" not in old
        found: dict[str, Any] = {}
        for name in [*olds, *(each for each in news if each not in olds)]:
            at = f"{path}.{name}"
            if name in olds and name in news:
                found[name] = self.pair(olds[name], news[name], at)
            elif not is_open:
                raise IncompatibleError(
                    at, f"`{name}` is in one type only, and readers of the other take no fields that they don't know"
                )
            else:
                found[name] = self._imported(olds[name]) if name in olds else self._take(news[name])
        rest, others = ({word: each for word, each in side.items() if word not in _MEMBERS} for side in (old, new))
        if "additionalProperties" in rest and "additionalProperties" in others:
            each = self.pair(rest.pop("additionalProperties"), others.pop("additionalProperties"), f"{path}.*")
            rest["additionalProperties"] = others["additionalProperties"] = each
        if not _same(rest, others):
            raise _broken(path, rest, others)
        said = {"properties": found} if found else {}
        return rest | said | ({"required": old["required"]} if needed else {})

    def _imported(self, old: Any) -> Any:
        """A part that only the existing schema has."""
        join = _Join(self._existing, self._existing)
        join.named, join._names = self.named, self._names
        return join.pair(old, old, "$")

    def _items(self, old: dict[str, Any], new: dict[str, Any], path: str) -> list[Any]:
        olds, news = old.pop("prefixItems"), new.pop("prefixItems")
        if len(olds) != len(news) and ("maxItems" in old or "items" in old):
            raise IncompatibleError(
                path, f"an array of {len(olds)} items would have {len(news)}: readers know one form only"
            )
        pairs = [self.pair(one, other, f"{path}[{i}]") for i, (one, other) in enumerate(zip(olds, news, strict=False))]
        return pairs + [self._imported(each) for each in olds[len(news) :]] + self._take_some(news[len(olds) :])

    def _take_some(self, news: list[Any]) -> list[Any]:
        return self._take(news) if news else []

    def _branches(self, olds: list[Any], news: list[Any], path: str) -> list[Any]:
        found, left = [], list(news)
        for old in olds:
            failure: IncompatibleError | None = None
            for new in left:
                adds, names, named = self.adds, dict(self._names), dict(self.named)
                try:
                    found.append(self.pair(old, new, path))
                except IncompatibleError as error:
                    self.adds, self._names, self.named = adds, names, named
                    failure = failure if failure is not None and len(failure.path) >= len(error.path) else error
                else:
                    left.remove(new)
                    break
            else:
                if failure is not None and len(failure.path) > len(path):
                    raise failure
                raise IncompatibleError(
                    path, f"{_said(old)} is gone: readers of the new type could not read what is kept"
                )
        if left:
            raise IncompatibleError(path, f"{_said(left[0])} is new: readers of the existing type could not read it")
        return found


# --- meaning ----------------------------------------------------------------------------------------------------------


def _meaning(schema: dict[str, Any]) -> dict[str, Any]:
    """What a schema says of values, apart from what it says to people."""
    found = {word: each for word, each in schema.items() if word not in _ABOUT}
    if "const" in found and "enum" not in found:
        found["enum"] = [found.pop("const")]
    if isinstance(found.get("enum"), list):
        found.pop("type", None)
        found["enum"] = sorted(found["enum"], key=_key)
    if isinstance(found.get("type"), list):
        found["type"] = sorted(found["type"]) if len(found["type"]) > 1 else found["type"][0]
    for word in ("properties", "required", "x-ebus"):
        if not found.get(word, True):
            del found[word]
    if found.get("additionalProperties") in (True, {}):
        del found["additionalProperties"]
    return found


def _is_object(meaning: dict[str, Any]) -> bool:
    return meaning.get("type") == "object" and ("properties" in meaning or "required" in meaning)


def _target(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """The part that a schema refers to; itself, where it refers to none."""
    for _ in range(50):
        ref = schema.get("$ref")
        if ref is None:
            return schema
        found: Any = document
        for step in ref[2:].split("/") if ref != "#" else ():
            step = step.replace("~1", "/").replace("~0", "~")
            found = found[int(step)] if isinstance(found, list) else found[step]
        if not isinstance(found, dict):
            return found
        schema = found
    raise IncompatibleError("$", "the references in the types are too long to be compared")


def _key(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")


def _same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return _key(old) == _key(new)


def _broken(path: str, old: Any, new: Any) -> IncompatibleError:
    return IncompatibleError(
        path,
        f"it is {_said(old)}, and would be {_said(new)}: readers of one could not read what writers of the other write",
    )


def _said(schema: Any) -> str:
    """A schema for people, in a few words."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return str(schema["$ref"]).rpartition("/")[2][:40]
        parts = [
            f"{word} {each}" if word != "type" else str(each) for word, each in schema.items() if word not in _ABOUT
        ]
        return (", ".join(parts) or "anything")[:80]
    return "nothing" if schema is False else "anything"
