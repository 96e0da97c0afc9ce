"""Pydantic models on a bus: the JSON Schema of a model, and its values as builtins and back.

A model's values have the same form on the wire as those of any other type: bytes are bytes, a time is a timestamp. Fields go
by their aliases, and computed fields stay at home: what is written must be what the model reads. A strict model reads the
text of a UUID or a Decimal as it would in JSON.
"""

from __future__ import annotations

import sys
from typing import Any

_DECIMAL = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"


class Model:
    """A pydantic type.

    Args:
        type_: The type.

    Attributes:
        schema: Its JSON Schema.

    Raises:
        Exception: pydantic has no JSON Schema for it, and says why with an error of its own.
    """

    def __init__(self, type_: Any) -> None:
        import pydantic
        import pydantic_core
        from pydantic.json_schema import GenerateJsonSchema

        class Schemas(GenerateJsonSchema):
            """What the wire carries, where JSON would carry something else."""

            def bytes_schema(self, schema: Any) -> Any:
                limits = {"minBytes": schema.get("min_length"), "maxBytes": schema.get("max_length")}
                limits = {name: limit for name, limit in limits.items() if limit is not None}
                return {"type": "string", "contentEncoding": "base64"} | ({"x-ebus": limits} if limits else {})

            def decimal_schema(self, schema: Any) -> Any:
                return {"type": "string", "format": "decimal", "pattern": _DECIMAL}

            def float_schema(self, schema: Any) -> Any:
                found = super().float_schema(schema)
                return found if schema.get("allow_inf_nan", True) else {**found, "x-ebus": {"finite": True}}

            def dict_schema(self, schema: Any) -> Any:
                found = super().dict_schema(schema)
                keys = self.generate_inner(schema["keys_schema"]) if "keys_schema" in schema else {}
                if keys.get("type") == "string" and keys.get("format") != "date-time":
                    return found
                found.pop("propertyNames", None)
                return {**found, "x-ebus": {"keys": keys}}

        self._adapter = pydantic.TypeAdapter(type_)
        self._json = pydantic_core.to_json
        self._jsonable = pydantic_core.to_jsonable_python
        self.schema: dict[str, Any] = self._adapter.json_schema(schema_generator=Schemas)

    @classmethod
    def of(cls, type_: Any) -> Model | None:
        """The model that ``type_`` is; None: it is none."""
        pydantic = sys.modules.get("pydantic")
        if pydantic is None or not (isinstance(type_, type) and issubclass(type_, pydantic.BaseModel)):
            return None
        return cls(type_)

    def to_builtins(self, value: Any) -> Any:
        """A value of the type as what msgspec encodes. Raises pydantic's errors where it is none."""
        return self._adapter.dump_python(self._adapter.validate_python(value), by_alias=True, round_trip=True)

    def from_builtins(self, value: Any) -> Any:
        """The value of the type. Raises pydantic's errors where there is none."""
        try:
            return self._adapter.validate_python(value)
        except ValueError as error:
            try:  # a strict model takes the text of a UUID from JSON only
                return self._adapter.validate_json(self._json(value, inf_nan_mode="constants"))
            except (ValueError, TypeError):
                raise error from None

    def plain(self, value: Any) -> Any:
        """What msgspec encodes in place of a part that only pydantic knows, such as a URL. Raises where it knows it neither."""
        return self._jsonable(value)


def dumped(value: Any) -> Any:
    """A pydantic model where no model is expected, as builtins; None: it is something else."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not isinstance(value, pydantic.BaseModel):
        return None
    return value.model_dump(mode="json", by_alias=True)
