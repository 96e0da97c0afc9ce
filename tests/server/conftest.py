from __future__ import annotations

from collections.abc import Iterator

import pytest

from .harness import Server

RULES = """
from jupyter_server.auth.authorizer import Authorizer

class Rules(Authorizer):
    '''Mallory may not use buses, Carol only looks on, and the bus "board" is Alice's.'''

    def is_authorized(self, handler, user, action, resource):
        if resource != "ebus":
            return True
        if user.username == "mallory" or (user.username == "carol" and action == "write"):
            return False
        bus = getattr(handler, "bus", None)
        return bus is None or bus.name != "board" or user.username == "alice"

c.ServerApp.authorizer_class = Rules
c.EBus.allow_origin = ["https://friend.example"]
c.EBus.batch_bytes = 1_000_000
c.KernelRestarter.time_to_dead = 0.3
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server behind a base URL, on a port that it chose by itself, started from within some other server's kernel."""
    with Server(
        tmp_path_factory.mktemp("server"),
        users=("alice", "bob", "carol", "mallory"),
        base_url="/deep/er/",
        config=RULES,
        env={"EBUS_URL": "http://elsewhere.example/", "EBUS_TOKEN": "elsewhere", "EBUS_CERT": "elsewhere.pem"},
    ) as running:
        yield running
