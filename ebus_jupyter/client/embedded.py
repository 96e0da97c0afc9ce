"""The broker of a process that has none: for nbval, papermill, VS Code, plain Python. Nothing leaves the process."""

from __future__ import annotations

import getpass
import os

from ebus_jupyter.broker.host import Broker
from ebus_jupyter.core.protocol.message import Kind, Participant
from ebus_jupyter.transports.local import LocalTransport

_broker: tuple[int, Broker] | None = None


def username() -> str:
    """The user who runs this process: there is no identity provider to ask."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "user"


async def connect_embedded(kind: Kind = "kernel") -> LocalTransport:
    """Connect to this process's own broker. Called on the ebus thread; the first call starts the broker.

    Args:
        kind: "kernel" (default), or "page" for a page of this kernel, whose frames come by way of the kernel.
    """
    global _broker
    if _broker is None or _broker[0] != os.getpid():
        broker = Broker()
        await broker.start()
        _broker = os.getpid(), broker
    broker = _broker[1]
    user = username()
    who = Participant(id="", kind=kind, user=user, name=user, kernel_id=f"process-{os.getpid()}")
    return LocalTransport(lambda outlet: broker.attach(who, outlet))
