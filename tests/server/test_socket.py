"""The WebSocket: authentication, origins, authorization, and connections that violate the protocol."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from ebus_jupyter.core.protocol import frames

from .harness import Server
from .wire import Refused, Wire


def as_user(server: Server, user: str, origin: str = "") -> Wire:
    return Wire(server, auth=f"token {server.token(user)}", origin=origin)


def own_origin(server: Server) -> str:
    return f"http://{urlsplit(server.url).netloc}"


def cookie(server: Server, user: str) -> str:
    return str(server.request("GET", "api/me", user).good().headers["Set-Cookie"]).partition(";")[0]


def test_script_with_a_token_is_a_client_with_its_jupyter_name(server: Server) -> None:
    with as_user(server, "alice") as wire:
        you = wire.hello().you
    assert (you.kind, you.user, you.name, you.kernel_id) == ("client", "alice", "Alice", "")


def test_browser_with_a_cookie_is_a_page(server: Server) -> None:
    with Wire(server, headers={"Cookie": cookie(server, "bob")}, origin=own_origin(server)) as wire:
        you = wire.hello().you
    assert (you.kind, you.user) == ("page", "bob")


@pytest.mark.parametrize("auth", ["", "token wrong", "ebus wrong", "Basic d3Jvbmc6d3Jvbmc="])
def test_unauthenticated_handshake_is_refused_with_a_hint(server: Server, auth: str) -> None:
    with pytest.raises(Refused) as refusal:
        Wire(server, auth=auth)
    assert (refusal.value.status, refusal.value.code) == (403, "unauthenticated")
    assert "token" in refusal.value.text


def test_invalid_kernel_token_is_refused_despite_a_valid_cookie(server: Server) -> None:
    with pytest.raises(Refused, match="unauthenticated"):
        Wire(server, auth="ebus wrong", headers={"Cookie": cookie(server, "alice")})


def test_foreign_origin_is_refused_despite_a_valid_token(server: Server) -> None:
    with pytest.raises(Refused, match="forbidden") as refusal:
        as_user(server, "alice", origin="https://evil.example")
    assert "EBus.allow_origin" in refusal.value.text


def test_configured_origin_is_allowed(server: Server) -> None:
    with as_user(server, "alice", origin="https://friend.example") as wire:
        assert wire.hello().you.kind == "page"


def test_same_origin_request_through_a_renaming_proxy_is_allowed(server: Server) -> None:
    proxied = {"Sec-Fetch-Site": "same-origin"}
    with Wire(server, auth=f"token {server.token('bob')}", origin="https://hub.example", headers=proxied) as wire:
        assert wire.hello().you.kind == "page"


def test_authorizer_refuses_a_user(server: Server) -> None:
    with pytest.raises(Refused) as refusal:
        as_user(server, "mallory")
    assert (refusal.value.status, refusal.value.code) == (403, "forbidden")


def test_read_only_user_receives_but_cannot_write(server: Server) -> None:
    with as_user(server, "alice") as alice, as_user(server, "carol") as carol:
        alice.hello(), carol.hello()
        theirs, hers = alice.open("lecture"), carol.open("lecture")
        carol.send(frames.Subscribe(2, hers.bus))
        carol.expect(frames.Subscribed)
        carol.publish(hers, 1, "me too")
        refused = carol.read()
        assert isinstance(refused, frames.Error)
        assert refused.code == "forbidden"
        alice.publish(theirs, 1, "hello")
        assert bytes(carol.expect(frames.Delivery).value) == b"\xa5hello"


def test_authorizer_is_asked_for_each_bus(server: Server) -> None:
    with as_user(server, "alice") as alice, as_user(server, "bob") as bob:
        alice.hello(), bob.hello()
        alice.open("board")
        bob.open("other")
        bob.send(frames.Open(2, "server", "board"))
        refused = bob.read()
        assert isinstance(refused, frames.Error)
        assert refused.code in ("forbidden", "no_such_bus")


@pytest.mark.parametrize(
    ("message", "binary", "code", "closed"),
    [
        ("hello", False, "protocol", 1003),
        (b"\x00" * 1_500_000, True, "too_large", 1009),
        (b"\xc1", True, "protocol", 1000),
    ],
    ids=["text", "too large", "malformed"],
)
def test_invalid_message_ends_its_connection_with_a_reason(
    server: Server, message: str | bytes, binary: bool, code: str, closed: int
) -> None:
    with as_user(server, "alice") as bad, as_user(server, "bob") as good:
        bad.hello(), good.hello()
        bad.socket.send(message, opcode=2 if binary else 1)
        bye = bad.read()
        assert isinstance(bye, frames.Bye)
        assert bye.code == code and bye.text
        assert bad.read() is None
        assert bad.closed is not None and bad.closed[0] == closed
        good.send(frames.Ping(7))
        assert good.expect(frames.Pong).n == 7


def test_shutdown_sends_a_bye_that_allows_reconnecting(server: Server) -> None:
    with as_user(server, "alice") as wire:
        wire.hello()
        server.restart()
        bye = wire.read()
        assert isinstance(bye, frames.Bye)
        assert bye.reconnect
        assert wire.read() is None
