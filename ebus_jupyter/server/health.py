"""``{base}ebus/api/health``: whether the buses of this server work.

The answer is 200 where they do and 503 where they do not. It is public, so that a supervisor needs no credentials; why they
do not work is told to users who may read buses, since the reason may name files.
"""

from __future__ import annotations

import msgspec
from jupyter_server.auth.decorator import allow_unauthenticated

from .access import BusAuthorizer
from .rest_handler import RestHandler


class HealthHandler(RestHandler):
    """Answers ``{"status": "ok"}`` or ``{"status": "failing"}``; with ``"broker"`` and ``"storage"`` for who may know."""

    needs_broker = False

    @allow_unauthenticated
    async def get(self) -> None:
        broker = self.services.broker
        is_running, failure = broker.is_running, broker.storage_failure
        is_well = is_running and failure is None
        answer = {"status": "ok" if is_well else "failing"}
        if self.current_user is not None and await BusAuthorizer(self).allows("read"):
            answer["broker"] = "running" if is_running else "stopped"
            answer["storage"] = "writable" if failure is None else str(failure)
        self.set_status(200 if is_well else 503)
        self.set_header("Cache-Control", "no-store")
        await self.finish(msgspec.json.encode(answer))
