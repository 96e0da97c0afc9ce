"""Jupyter's own identity provider, where one token is for all: who is who, and how often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ebus_jupyter.core.protocol import frames

from .harness import Server
from .http_api import BUS
from .wire import Wire

DEFAULT = """
from jupyter_server.auth.identity import PasswordIdentityProvider
c.ServerApp.identity_provider_class = PasswordIdentityProvider
c.IdentityProvider.token = c.PasswordIdentityProvider.token = {token!r}
"""


class OneToken(Server):
    """A server as a person starts it: with one token, and no users."""

    def token(self, user: str) -> str:
        return f"all-{self._salt}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneToken]:
    server = OneToken(tmp_path_factory.mktemp("shared"))
    server._config = DEFAULT.format(token=server.token(""))
    with server:
        yield server


def wire(server: Server, **more: str) -> Wire:
    return Wire(server, auth=f"token {server.token('')}", headers=more)


def test_clients_of_one_token_are_one_anonymous_user(shared: Server) -> None:
    with wire(shared) as first, wire(shared) as second:
        one, other = first.hello().you, second.hello().you
    assert one.user == other.user and one.user
    assert one.anonymous
    assert one.id != other.id, "each is an instance of its own"
    with wire(shared) as again:
        assert again.hello().you.user == one.user, "and the same one after a reconnect"


def test_http_request_and_kernel_with_the_token_are_that_user_too(shared: Server) -> None:
    with wire(shared) as client:
        you = client.hello().you
    messages = BUS.format(scope="server", name="who", what="messages")
    for value in (1, 2):
        shared.request("POST", messages, "", body={"value": value}, headers=shared.headers("x")).good()
    kernel = shared.start_kernel("x")
    kernel.run("import ebus_jupyter as ebus; ebus.bus('who').write(3).result(10)")
    found = shared.request("GET", messages, headers=shared.headers("x")).good().json()["messages"]
    kernel.shutdown()
    assert {message["sender"]["user"] for message in found} == {you.user}
    assert all(message["sender"]["anonymous"] for message in found)


def test_browser_with_a_cookie_is_a_person_of_its_own(shared: Server) -> None:
    def browser() -> dict[str, str]:
        answer = shared.request("GET", f"api/me?token={shared.token('')}").good()
        return {"Cookie": str(answer.headers["Set-Cookie"]).partition(";")[0]}

    with Wire(shared, headers=browser()) as alice, Wire(shared, headers=browser()) as bob, wire(shared) as script:
        people = [each.hello().you for each in (alice, bob, script)]
    assert len({you.user for you in people}) == 3
    assert [you.anonymous for you in people] == [False, False, True]


def test_poll_counts_one_vote_for_all_clients_of_a_token(shared: Server) -> None:
    kernel = shared.start_kernel("x")
    kernel.run(
        "import ebus_jupyter as ebus\n"
        "poll = ebus.widgets.Poll('lunch', question='Where to?', options=['Thai', 'Pizza'])"
    )
    for _ in range(3):
        with wire(shared) as stuffer:
            stuffer.hello()
            bus = stuffer.open("poll:lunch")
            stuffer.publish(bus, 1, {"type": "vote", "choice": "Thai"})
            stuffer.expect(frames.Ok)
    assert kernel.run("poll.results").value == "{'Thai': 1, 'Pizza': 0}"
    kernel.shutdown()


def test_log_out_ends_a_socket_of_jupyter_s_own_provider(shared: Server) -> None:
    answer = shared.request("GET", f"api/me?token={shared.token('')}").good()
    cookie = {"Cookie": str(answer.headers["Set-Cookie"]).partition(";")[0]}
    with Wire(shared, headers=cookie) as page:
        page.hello()
        shared.request("GET", "logout", headers=cookie).good()
        bye = page.read()
        assert isinstance(bye, frames.Bye)
        assert bye.code == "unauthenticated"
