"""A running broker, for a test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from ebus_jupyter.broker.host import Broker
from ebus_jupyter.core.protocol.limits import Limits


@contextlib.asynccontextmanager
async def running(
    durable: Any = None, *, limits: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Broker]:
    broker = Broker(durable, limits=Limits(**(limits or {})), **settings)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.aclose()


async def iterations(count: int = 20) -> None:
    """Let the event loop run everything that is due."""
    for _ in range(count):
        await asyncio.sleep(0)
