"""A connection ends with what allowed it: log-out, a user who is gone, rights that were taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ebus_jupyter.core.protocol import frames

from .harness import Server
from .http_api import EventSource, write
from .wire import Refused, Wire

RULES = """
import json, pathlib
from jupyter_server.auth.authorizer import Authorizer

RULES = pathlib.Path({path!r})

class Changing(Authorizer):
    def is_authorized(self, handler, user, action, resource):
        if resource != "ebus":
            return True
        bus = getattr(handler, "bus", None)
        return [user.username, action, bus and bus.name] not in json.loads(RULES.read_text())["forbidden"]

class Leaving(c.ServerApp.identity_provider_class):
    async def get_user_token(self, handler):
        user = await super().get_user_token(handler)
        return None if user is None or user.username in json.loads(RULES.read_text())["gone"] else user

c.ServerApp.authorizer_class = Changing
c.ServerApp.identity_provider_class = Leaving
"""


class Changeable(Server):
    """A server whose users may leave, and whose Authorizer may change its mind."""

    def decide(self, *forbidden: tuple[str, str, str | None], gone: tuple[str, ...] = ()) -> None:
        (self.folder / "rules.new").write_text(json.dumps({"forbidden": forbidden, "gone": gone}))
        (self.folder / "rules.new").replace(self.folder / "rules.json")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Changeable]:
    folder = tmp_path_factory.mktemp("changing")
    server = Changeable(folder, config=RULES.format(path=str(folder / "rules.json")))
    server.decide()
    with server:
        yield server


@pytest.fixture
def changing(running: Changeable) -> Changeable:
    running.decide()
    return running


def as_user(server: Server, user: str, **more: Any) -> Wire:
    return Wire(server, auth=f"token {server.token(user)}", **more)


def cookie(server: Server, user: str) -> dict[str, str]:
    answer = server.request("GET", "api/me", user).good()
    return {"Cookie": str(answer.headers["Set-Cookie"]).partition(";")[0]}


def test_log_out_ends_the_sockets_of_its_cookie(changing: Server) -> None:
    hers, his = cookie(changing, "alice"), cookie(changing, "bob")
    with Wire(changing, headers=hers) as page, Wire(changing, headers=his) as other:
        page.hello(), other.hello()
        changing.request("GET", "logout", headers=hers).good()
        bye = page.read()
        assert isinstance(bye, frames.Bye)
        assert (bye.code, bye.reconnect) == ("unauthenticated", False)
        assert page.read() is None
        other.send(frames.Ping(1))
        assert other.expect(frames.Pong).n == 1
    with pytest.raises(Refused, match="unauthenticated"):
        Wire(changing, headers=hers)


def test_log_out_ends_event_streams(changing: Server, name: str) -> None:
    write(changing, name, value="before")
    hers = cookie(changing, "alice")
    path = f"ebus/api/buses/server/{name}/events?since=start"
    with changing.stream("GET", path, headers=hers, timeout=20) as stream:
        while b"before" not in stream.readline():
            pass
        changing.request("GET", "logout", headers=hers).good()
        while stream.readline():
            pass
    assert changing.request("GET", path, headers=hers).status in (401, 403)


def test_connections_of_a_user_who_is_gone_end(changing: Changeable, name: str) -> None:
    write(changing, name, value=1)
    with as_user(changing, "alice") as wire, EventSource(changing, name) as events:
        wire.hello()
        changing.decide(gone=("alice",))
        bye = wire.read()
        assert isinstance(bye, frames.Bye)
        assert bye.code == "unauthenticated"
        with pytest.raises(EOFError):
            events.next()


def test_connections_that_the_authorizer_no_longer_allows_end(changing: Changeable, name: str) -> None:
    write(changing, name, value=1)
    with as_user(changing, "alice") as wire, EventSource(changing, name) as events:
        wire.hello()
        changing.decide(("alice", "read", None))
        bye = wire.read()
        assert isinstance(bye, frames.Bye)
        assert bye.code == "forbidden"
        with pytest.raises(EOFError):
            events.next()


def test_bus_that_the_authorizer_no_longer_allows_is_closed(changing: Changeable, name: str) -> None:
    write(changing, name, value=1)
    with (
        as_user(changing, "alice") as alice,
        as_user(changing, "bob") as bob,
        EventSource(changing, name, user="bob") as events,
    ):
        alice.hello(), bob.hello()
        hers, his = alice.open(name), bob.open(name)
        changing.decide(("bob", "read", name))
        gone = bob.expect(frames.Gone)
        assert gone.bus == his.bus
        while events.next()[0] != "closed":  # it is looked at again within the same round
            pass
        alice.publish(hers, 1, "secret")
        alice.expect(frames.Ok)
        bob.send(frames.Ping(9))
        assert bob.expect(frames.Pong).n == 9


def test_writer_that_the_authorizer_no_longer_allows_is_refused(changing: Changeable, name: str) -> None:
    with as_user(changing, "bob") as bob, as_user(changing, "alice") as alice:
        bob.hello(), alice.hello()
        his, hers = bob.open(name), alice.open(name)
        changing.decide(("bob", "write", name), ("alice", "read", name))
        assert alice.expect(frames.Gone).bus == hers.bus  # the other one is looked at again within the same round
        id_, answer = 0, None
        while not isinstance(answer, frames.Error):
            id_ += 1
            bob.publish(his, id_, id_)
            answer = bob.read()
        assert answer.code == "forbidden"


def test_kernel_ends_with_the_rights_of_its_user(changing: Changeable) -> None:
    kernel = changing.start_kernel("alice")
    kernel.run("import ebus_jupyter as ebus; bus = ebus.bus('of-the-kernel')")
    changing.decide(("alice", "read", None))
    kernel.run(
        "import threading; ended = threading.Event(); bus.client.on_status(lambda s: s == 'closed' and ended.set())\n"
        "bus.client.status == 'closed' or ended.wait(20)"
    )
    said = kernel.run("(bus.client.status, type(bus.client.why).__name__)").value
    kernel.shutdown()
    assert said == "('closed', 'Forbidden')"
