"""What only administrators may do: end connections, copy the file of all buses, compact it.

| | |
| --- | --- |
| ``POST ebus/api/kick`` | ``{"who": USER or a participant's id}``; answers ``{"ended": N}`` |
| ``POST ebus/api/backup`` | answers a copy of the file, as it is at one moment |
| ``POST ebus/api/compact`` | answers ``{"freed": BYTES}`` |

Jupyter's Authorizer is asked with action "execute" on resource ``ebus``. Jupyter's default Authorizer allows every user
everything; a server of several users that are not to administer each other's buses needs one of its own. A backup holds the
messages of all users.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
from jupyter_server.auth.decorator import authorized
from tornado import web

from ebus_jupyter.backends.sqlite import SqliteBackend
from ebus_jupyter.errors import BackendError, ProtocolError
from ebus_jupyter.terminal import printable

from .rest_handler import RestHandler
from .services import Services

CHUNK_BYTES = 1 << 20


class Kick(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request to end connections."""

    who: str


class AdministrationHandler(RestHandler):
    """Base of the handlers here."""

    allows = "POST, OPTIONS"

    @property
    def file(self) -> SqliteBackend:
        """The file of the named buses.

        Raises:
            BackendError: They are kept elsewhere.
        """
        durable = self.services.broker.durable
        if not isinstance(durable, SqliteBackend):
            raise BackendError("this server keeps its buses in no file of ours (EBus.backend).")
        return durable


class KickHandler(AdministrationHandler):
    """``ebus/api/kick``"""

    @web.authenticated
    @authorized("execute")  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        try:
            who = msgspec.json.decode(self.request.body, type=Kick).who
        except msgspec.MsgspecError as error:
            raise ProtocolError(f'the body is not {{"who": USER}}: {error}.') from None
        by = self.current_user.username
        ended = self.services.broker.kick(who, f"{by} has ended the connection.")
        self.log.info("ebus: connections_kicked who=%r by=%r connections=%d", printable(who), printable(by), ended)
        self.answer({"ended": ended})


class BackupHandler(AdministrationHandler):
    """``ebus/api/backup``"""

    @web.authenticated
    @authorized("execute")  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        file = self.file
        # Beside the file: it is as private there, and may be as large.
        with tempfile.TemporaryDirectory(dir=file.path.parent, prefix=".backup-") as folder:
            copy = Path(folder) / "copy.sqlite"
            await file.backup(copy)
            self.set_header("Content-Type", "application/vnd.sqlite3")
            self.set_header("Content-Length", str(copy.stat().st_size))
            with copy.open("rb") as content:
                while data := content.read(CHUNK_BYTES):
                    self.write(data)
                    await self.flush()
        await self.finish()


class CompactHandler(AdministrationHandler):
    """``ebus/api/compact``"""

    @web.authenticated
    @authorized("execute")  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        self.answer({"freed": await self.file.compact()})


def routes(services: Services) -> list[tuple[str, type[RestHandler], dict[str, Any]]]:
    """Return the handlers, with their URLs below the server's base URL."""
    arguments = {"services": services}
    return [
        (r"ebus/api/kick", KickHandler, arguments),
        (r"ebus/api/backup", BackupHandler, arguments),
        (r"ebus/api/compact", CompactHandler, arguments),
    ]
