"""The parts of the extension that request handlers may use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ebus_jupyter.broker.host import Broker

from .identity import Identities
from .kernels import KernelWatcher
from .tokens import Tokens
from .turns import Turns


@dataclass(frozen=True, slots=True)
class Services:
    """The running parts of the extension and the settings that concern requests.

    Attributes:
        broker: The broker of this server; it takes connections once it is `ready`.
        tokens: The kernels' tokens.
        identities: Jupyter's identity provider, as requests ask it.
        kernels: Reports the activity of kernels to the broker.
        allow_origin: Origins that may connect besides the server's own and those of ServerApp.allow_origin.
        ping_interval: Seconds between pings, and between the comments of an event stream; 0 for none.
        turns: The requests that read a lot.
        ready: Waits for the broker's start, which requests can precede. Raises `BackendError` where the broker could not be
            started, or has ended.
    """

    broker: Broker
    tokens: Tokens
    identities: Identities
    kernels: KernelWatcher
    allow_origin: frozenset[str]
    ping_interval: float
    turns: Turns
    ready: Callable[[], Awaitable[None]]
