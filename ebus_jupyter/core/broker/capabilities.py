"""Capabilities: the proofs by which a page enters a kernel's bus, or an unnamed one (`Address.capability`)."""

from __future__ import annotations

from collections.abc import Callable

from ebus_jupyter.core.protocol.address import Address, may_enter
from ebus_jupyter.core.protocol.message import Participant


class Capabilities:
    """Makes and checks capabilities.

    That of a kernel's bus ends with the kernel, whoever holds it: a part of its key is made when the kernel first opens a bus,
    and forgotten when the kernel is shut down.

    Args:
        secret: The key; its holder can enter every bus.
        mint: Returns the given number of fresh, unguessable hexadecimal digits.
    """

    def __init__(self, secret: bytes, mint: Callable[[int], str]) -> None:
        self._secret = secret
        self._mint = mint
        self._kernels: dict[str, bytes] = {}

    def of(self, address: Address) -> str:
        """The capability for an address that a connection has entered; "" where entering takes none."""
        if not address.guarded:
            return ""
        if address.scope == "kernel" and address.owner not in self._kernels:
            self._kernels[address.owner] = self._mint(32).encode()
        return address.capability(self._key(address))

    def admit(self, address: Address, who: Participant, capability: str = "") -> bool:
        """True if ``who`` may open ``address``, by being in its scope or by holding its capability."""
        return may_enter(address, who, capability, self._key(address))

    def end_kernel(self, kernel_id: str) -> None:
        """A kernel was shut down."""
        self._kernels.pop(kernel_id, None)

    def _key(self, address: Address) -> bytes:
        if address.scope != "kernel":
            return self._secret
        key = self._kernels.get(address.owner)
        return b"" if key is None else self._secret + key
