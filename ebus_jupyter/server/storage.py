"""The file in which a server stores its named buses: one for each folder that a Jupyter server serves.

The file lies in Jupyter's data folder and is named after the server's root folder, so that a server restarted there, on
whatever port, finds its buses. A second server of the same folder uses a file of its own while the first is running.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from ebus_jupyter.backends.sqlite import SqliteBackend
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.errors import BackendError

MAX_SERVERS = 20
"""The number of servers that may serve one folder at once, each with a file of its own."""

LOCK_TIMEOUT_SECONDS = 5.0
"""The time to wait for the first file: the server that has it open may be about to stop."""


def default_path(data_dir: str, root_dir: str) -> Path:
    """Return the file for a server that serves ``root_dir``."""
    root = Path(root_dir).expanduser().resolve()
    name = re.sub(r"[^\w.-]", "_", root.name)[:40] or "root"
    return Path(data_dir) / "ebus" / f"{name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}.sqlite"


def ensure_outside(path: Path, root_dir: str, *, hidden_is_served: bool) -> None:
    """Refuse a database that the server's file browser would show.

    Whoever may read the server's files could read all buses by it, and write them, whatever their access lists say.

    Raises:
        BackendError: ``path`` is in ``root_dir``, and no part of its way there is hidden or hidden files are served.
    """
    root, resolved = Path(root_dir).expanduser().resolve(), path.resolve()
    if not resolved.is_relative_to(root):
        return
    if hidden_is_served or not any(part.startswith(".") for part in resolved.relative_to(root).parts):
        raise BackendError(
            f"{path} is in the folder that this server serves ({root}): the file browser would hand out all buses. Put it "
            "elsewhere (EBus.database)."
        )


async def open_file(path: Path, limits: Limits, synchronous: str, log: logging.Logger) -> SqliteBackend:
    """Open the backend on ``path`` or, while another server uses that, on the first free file beside it.

    Raises:
        BackendError: The file can't be created, read or written, or `MAX_SERVERS` files are in use.
    """
    for n in range(1, MAX_SERVERS + 1):
        candidate = _numbered(path, n)
        backend = SqliteBackend(
            candidate,
            synchronous="FULL" if synchronous == "FULL" else "NORMAL",
            max_bytes=limits.log_bytes,
            dedupe=limits.dedupe,
            dedupe_bytes=limits.dedupe_bytes,
            max_buses=limits.kept_buses,
            patience=LOCK_TIMEOUT_SECONDS if n == 1 else 0.0,
        )
        try:
            await backend.buses()
        except BackendError as error:
            if not error.details.get("in_use"):
                raise
            continue
        if n > 1:
            log.warning("ebus: another server of this folder uses %s; this one stores its buses in %s", path, candidate)
        await _tell_of_siblings(path, candidate, log)
        return backend
    raise BackendError(
        f"{MAX_SERVERS} servers of one folder already use {path} and the files beside it; stop some of them."
    )


async def _tell_of_siblings(path: Path, chosen: Path, log: logging.Logger) -> None:
    """Name the files beside ``chosen`` that hold buses and that no server has open: two servers may have changed places."""
    for n in range(1, MAX_SERVERS + 1):
        sibling = _numbered(path, n)
        if sibling == chosen or not sibling.exists():
            continue
        backend = SqliteBackend(sibling, patience=0.0)
        try:
            names = sorted(await backend.buses())
        except BackendError:  # in use, or damaged: not this server's
            continue
        finally:
            await backend.aclose()
        if names:
            log.warning(
                "ebus: this server stores its buses in %s. %d more, such as %s, are in %s, which a second server of this "
                "folder has left; set EBus.database to that file to have them.",
                chosen,
                len(names),
                names[0],
                sibling,
            )


def _numbered(path: Path, n: int) -> Path:
    return path if n == 1 else path.with_name(f"{path.stem}.{n}{path.suffix}")
