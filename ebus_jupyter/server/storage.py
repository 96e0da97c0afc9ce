"""Where this server's named buses are kept: one file for each folder that a Jupyter server serves.

The file lies in Jupyter's data folder, named after the server's root folder, so that a server started again there, on
whatever port, finds its buses. A second server of the same folder, while the first is running, gets a file of its own.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from ebus_jupyter.backends.sqlite import SqliteBackend
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.errors import BackendError

SERVERS = 20
"""How many servers may serve one folder at once, each with a file of its own."""

PATIENCE_SECONDS = 5.0
"""How long the first file is waited for: the server that has it may be about to end."""


def file_of(data_dir: str, root_dir: str) -> Path:
    """The file for a server that serves ``root_dir``."""
    root = Path(root_dir).expanduser().resolve()
    name = re.sub(r"[^\w.-]", "_", root.name)[:40] or "root"
    return Path(data_dir) / "ebus" / f"{name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}.sqlite"


async def open_file(path: Path, limits: Limits, synchronous: str, log: logging.Logger) -> SqliteBackend:
    """The backend on ``path``, or, where another server has it, on the first free file beside it.

    Raises:
        BackendError: The file can't be made, read or written.
    """
    for n in range(1, SERVERS + 1):
        candidate = path if n == 1 else path.with_name(f"{path.stem}.{n}{path.suffix}")
        backend = SqliteBackend(
            candidate,
            synchronous="FULL" if synchronous == "FULL" else "NORMAL",
            max_bytes=limits.log_bytes,
            dedupe=limits.dedupe,
            max_buses=limits.kept_buses,
            patience=PATIENCE_SECONDS if n == 1 else 0.0,
        )
        try:
            await backend.buses()
        except BackendError as error:
            if not error.details.get("in_use"):
                raise
            continue
        if n > 1:
            log.warning("ebus: another server of this folder has %s; this one keeps its buses in %s", path, candidate)
        return backend
    raise BackendError(f"{SERVERS} servers of one folder have their buses' files beside {path}; stop some of them.")
