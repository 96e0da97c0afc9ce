"""Who gets in at the bus's socket, as whom, and what becomes of those who misbehave."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ebus_jupyter.core.protocol import frames

from .harness import Server
from .wire import TurnedAway, Wire


def as_user(server: Server, user: str, origin: str = "") -> Wire:
    return Wire(server, auth=f"token {server.token(user)}", origin=origin)


def own_origin(server: Server) -> str:
    return f"http://{urlsplit(server.url).netloc}"


def cookie(server: Server, user: str) -> str:
    return str(server.request("GET", "api/me", user).good().headers["Set-Cookie"]).partition(";")[0]


def test_a_script_with_a_token_is_a_client_under_the_name_that_jupyter_knows(server: Server) -> None:
    with as_user(server, "alice") as wire:
        you = wire.hello().you
    assert (you.kind, you.user, you.name, you.kernel_id) == ("client", "alice", "Alice", "")


def test_a_browser_with_a_cookie_is_a_page(server: Server) -> None:
    with Wire(server, headers={"Cookie": cookie(server, "bob")}, origin=own_origin(server)) as wire:
        you = wire.hello().you
    assert (you.kind, you.user) == ("page", "bob")


@pytest.mark.parametrize("auth", ["", "token wrong", "ebus wrong", "Basic d3Jvbmc6d3Jvbmc="])
def test_a_stranger_is_told_what_to_do(server: Server, auth: str) -> None:
    with pytest.raises(TurnedAway) as refused:
        Wire(server, auth=auth)
    assert (refused.value.status, refused.value.code) == (403, "unauthenticated")
    assert "token" in refused.value.text


def test_a_wrong_kernel_token_is_not_made_good_by_a_cookie(server: Server) -> None:
    with pytest.raises(TurnedAway, match="unauthenticated"):
        Wire(server, auth="ebus wrong", headers={"Cookie": cookie(server, "alice")})


def test_a_foreign_page_is_turned_away_even_with_a_good_token(server: Server) -> None:
    with pytest.raises(TurnedAway, match="forbidden") as refused:
        as_user(server, "alice", origin="https://evil.example")
    assert "EBus.allow_origin" in refused.value.text


def test_a_page_of_an_origin_that_the_server_trusts_gets_in(server: Server) -> None:
    with as_user(server, "alice", origin="https://friend.example") as wire:
        assert wire.hello().you.kind == "page"


def test_a_page_behind_a_proxy_that_renames_the_host_gets_in_by_the_browsers_word(server: Server) -> None:
    proxied = {"Sec-Fetch-Site": "same-origin"}
    with Wire(server, auth=f"token {server.token('bob')}", origin="https://hub.example", headers=proxied) as wire:
        assert wire.hello().you.kind == "page"


def test_the_authorizer_may_keep_someone_out(server: Server) -> None:
    with pytest.raises(TurnedAway) as refused:
        as_user(server, "mallory")
    assert (refused.value.status, refused.value.code) == (403, "forbidden")


def test_one_who_may_only_look_on_reads_and_does_not_write(server: Server) -> None:
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


def test_the_authorizer_is_asked_for_each_bus(server: Server) -> None:
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
def test_who_sends_nonsense_is_told_and_disconnected_and_the_server_goes_on(
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


def test_a_shutdown_says_goodbye(tmp_path: Path) -> None:
    with Server(tmp_path) as server, as_user(server, "alice") as wire:
        wire.hello()
        server.stop()
        bye = wire.read()
        assert isinstance(bye, frames.Bye)
        assert bye.reconnect
        assert wire.read() is None


def test_a_peer_that_has_gone_silent_is_noticed(tmp_path: Path) -> None:
    with Server(tmp_path, args=["--EBus.ping_interval=0.3"]) as server:
        silent, alice = as_user(server, "bob"), as_user(server, "alice")
        alice.hello(), silent.hello()
        alice.watch(alice.open("room"))
        silent.open("room")  # and from here on it reads nothing, so that it answers no ping
        who, status, _ = alice.seat()
        while status != "away":
            who, status, _ = alice.seat()
        assert who.user == "bob"
