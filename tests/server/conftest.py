from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio

import ebus_jupyter as ebus
from ebus_jupyter.client.client import Client

from .harness import Server
from .room import Room

RULES = """
from jupyter_server.auth.authorizer import Authorizer

class Rules(Authorizer):
    '''Mallory may not use buses, Carol may only read, and the bus "board" is Alice's.'''

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
    """A server with a base URL, on a port that it chose, started in the environment of another server's kernel.

    Starting a server takes seconds, so all tests share this one where they can, and some restart it. They use buses of
    their own (`name`) and shut down their kernels.
    """
    with Server(
        tmp_path_factory.mktemp("server"),
        users=("alice", "bob", "carol", "mallory"),
        base_url="/deep/er/",
        config=RULES,
        env={"EBUS_URL": "http://elsewhere.example/", "EBUS_TOKEN": "elsewhere", "EBUS_CERT": "elsewhere.pem"},
    ) as running:
        yield running


@pytest.fixture
def name() -> str:
    """The name of a bus that no other test uses."""
    return f"bus-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def client_of(server: Server) -> Iterator[Callable[[str], Client]]:
    """Makes a client of the server for a user."""
    clients: list[Client] = []

    def make(user: str) -> Client:
        clients.append(ebus.connect(server.url, server.token(user)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest_asyncio.fixture
async def room() -> AsyncIterator[Room]:
    async with Room() as room:
        yield room
