"""``{base}ebus/api/health``: whether the buses of this server work.

The answer is 200 where they do and 503 where they do not. It is public, so that a supervisor needs no credentials; why they
do not work is told to users who may read buses, since the reason may name files.
"""

from __future__ import annotations

import msgspec
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import APIHandler

from ebus_jupyter.core.protocol.address import Address

from .access import RESOURCE, BusAuthorizer
from .services import Services


class HealthHandler(APIHandler):
    """Answers ``{"status": "ok"}`` or ``{"status": "failing"}``; with ``"broker"`` and ``"storage"`` for who may know."""

    auth_resource = RESOURCE
    bus: Address | None = None
    """The bus that the Authorizer is asked about; None: any."""

    def initialize(self, services: Services) -> None:
        self._broker = services.broker
        self._identities = services.identities

    @allow_unauthenticated
    async def get(self) -> None:
        is_running, failure = self._broker.is_running, self._broker.storage_failure
        is_well = is_running and failure is None
        answer = {"status": "ok" if is_well else "failing"}
        self._identities.settle(self)  # a cookie that was logged out is no credential
        if self.current_user is not None and await BusAuthorizer(self).allows("read"):
            answer["broker"] = "running" if is_running else "stopped"
            answer["storage"] = "writable" if failure is None else str(failure)
        self.set_status(200 if is_well else 503)
        self.set_header("Cache-Control", "no-store")
        await self.finish(msgspec.json.encode(answer))
