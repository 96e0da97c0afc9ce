"""The fixed facts about one loaded bus, as the parts that serve it need them."""

from __future__ import annotations

import msgspec

from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import BusSpec
from ebus_jupyter.core.protocol.validation import Validator


class BusInfo(msgspec.Struct, eq=False, gc=False):
    """The facts about a bus. While it is loaded, only its spec may change, to a compatible one.

    Attributes:
        address: The bus's address.
        uri: The same, as a string.
        name: The bus's name within its scope.
        number: Identifies the bus on the wire, until it is unloaded.
        spec: The bus's specification.
        limits: The broker's bounds.
        schema: Checks the values that are written.
        emits: Checks the values that its filter answers with.
    """

    address: Address
    uri: str
    name: str
    number: int
    spec: BusSpec
    limits: Limits
    schema: Validator
    emits: Validator

    @classmethod
    def of(cls, address: Address, number: int, spec: BusSpec, limits: Limits) -> BusInfo:
        """The facts about the bus at ``address``.

        Raises:
            SpecConflict: A schema of ``spec`` cannot be used.
        """
        schema = Validator.of(spec.schema)
        emits = schema if spec.emits is None else Validator.of(spec.emits)
        return cls(address, str(address), address.name, number, spec, limits, schema, emits)

    def alter(self, spec: BusSpec) -> None:
        """The spec is another one from now on."""
        self.spec = spec
        self.schema = Validator.of(spec.schema)
        self.emits = self.schema if spec.emits is None else Validator.of(spec.emits)
