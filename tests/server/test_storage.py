"""The file in which a server stores its buses: which one it is, and what the log says where there are several."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.errors import BackendError
from ebus_jupyter.server import storage
from tests.contracts.backend import begin

log = logging.getLogger(__name__)


@pytest.mark.asyncio
async def test_second_server_of_a_folder_says_which_file_it_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, "LOCK_TIMEOUT_SECONDS", 0.0)
    path = tmp_path / "class.sqlite"
    first = await storage.open_file(path, Limits(), "NORMAL", log)
    second = await storage.open_file(path, Limits(), "NORMAL", log)
    assert second.path == tmp_path / "class.2.sqlite"
    assert f"another server of this folder uses {path}; this one stores its buses in {second.path}" in caplog.text
    await first.aclose()
    await second.aclose()


@pytest.mark.asyncio
async def test_buses_that_a_second_server_has_left_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(storage, "LOCK_TIMEOUT_SECONDS", 0.0)
    path = tmp_path / "class.sqlite"
    first = await storage.open_file(path, Limits(), "NORMAL", log)
    second = await storage.open_file(path, Limits(), "NORMAL", log)
    await begin(second)
    await first.aclose()
    await second.aclose()
    caplog.clear()
    restarted = await storage.open_file(path, Limits(), "NORMAL", log)
    assert restarted.path == path
    [told] = caplog.messages
    assert f"1 more, such as ebus:server/votes, are in {second.path}" in told
    assert "set EBus.database to that file" in told
    await restarted.aclose()


def test_database_in_the_served_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "home"
    for path, hidden_is_served in ((root / "ebus.sqlite", False), (root / ".local" / "ebus.sqlite", True)):
        with pytest.raises(BackendError, match="file browser would hand out all buses"):
            storage.ensure_outside(path, str(root), hidden_is_served=hidden_is_served)
    storage.ensure_outside(root / ".local" / "ebus.sqlite", str(root), hidden_is_served=False)
    storage.ensure_outside(tmp_path / "ebus.sqlite", str(root), hidden_is_served=True)
