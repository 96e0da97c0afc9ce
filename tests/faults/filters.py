"""A filter that runs in the server: slow, out of order, and one that refuses."""

from __future__ import annotations

import asyncio
from typing import Any

from ebus_jupyter.errors import Reject

MARK = "marked"


async def marks(value: Any, sender: Any) -> Any:
    """Add a mark to each value, and refuse every seventh write."""
    if value[1] % 7 == 0:
        raise Reject("a seventh one")
    await asyncio.sleep(value[1] % 5 / 1000)
    return [*value, MARK]
