"""The buses of a copy of the SQLite backend's file, and where each of them ends."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from ebus_jupyter.errors import BackendError

from .sqlite import SqliteBackend


class Head(NamedTuple):
    """The end of a bus: its epoch, and the last offset that was assigned in it."""

    epoch: str
    last: int


async def heads(path: Path) -> dict[str, Head]:
    """Read the ends of all buses in a file that no server uses, by address. The file is left as it is.

    Raises:
        BackendError: The file is in use, damaged, or another program's.
        OSError: There is no such file.
    """
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise BackendError(
            f"{path} is in use, or its server was killed: compare a backup of it (`jupyter ebus backup`)."
        )
    with tempfile.TemporaryDirectory() as folder:  # an older file would be migrated
        copy = Path(shutil.copyfile(path, Path(folder) / "copy.sqlite"))
        backend = SqliteBackend(copy)
        try:
            found = {}
            for uri in await backend.buses():
                kept = await backend.open(uri, None, "")
                if kept is not None:
                    found[uri] = Head(kept.epoch, kept.last)
            return found
        finally:
            await backend.aclose()
