"""Each test is one notebook, with a client of its own on an in-process broker."""

from __future__ import annotations

from collections.abc import Iterator

import ipywidgets as widgets
import pytest

from ebus_jupyter.client.client import Client
from ebus_jupyter.widgets.sharing import share as sharing
from tests.client.conftest import Line, line, make_line  # noqa: F401


@pytest.fixture(autouse=True)
def notebook_client(line: Line, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:  # noqa: F811
    """This notebook's client. Whatever else shares the name is another notebook."""
    client = line.client("alice", "k1")
    monkeypatch.setattr(sharing, "default_client", lambda: client)
    yield client
    widgets.Widget.close_all()
    assert sharing._shares == {}, "a closed widget is not shared any more"
