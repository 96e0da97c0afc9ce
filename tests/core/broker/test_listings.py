"""Lists of buses: pages of a sorted catalogue, and their changes told to those who watch."""

from __future__ import annotations

from typing import Any

import pytest

from ebus_jupyter.core.broker.catalogue import EXAMINED
from ebus_jupyter.core.broker.listings import WATCH_SECONDS, WATCHES
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import BusSpec
from tests.core.play import Play, Raw


def _fill(play: Play, *uris: str, **spec: Any) -> None:
    for uri in uris:
        play.broker.registry.catalogue.add(Address.parse(uri), BusSpec(**spec), play.now)


def _pages(raw: Raw, **how: Any) -> list[list[str]]:
    pages: list[list[str]] = []
    after = ""
    while True:
        (listed,) = raw.say(frames.List(1, after, **how))
        pages.append([bus["address"] for bus in listed.buses])
        after = listed.following
        if not after:
            return pages


def _all(pages: list[list[str]]) -> list[str]:
    return [uri for page in pages for uri in page]


def _names(count: int) -> list[str]:
    return [f"ebus:server/b{n:05d}" for n in range(count)]


def test_list_is_read_in_pages_that_miss_and_repeat_nothing(play):
    names = _names(12)
    _fill(play, *reversed(names))
    pages = _pages(Raw(play).hello(), limit=5)
    assert [len(page) for page in pages] == [5, 5, 2]
    assert _all(pages) == names


def test_list_covers_the_scopes_that_a_participant_is_in(play):
    _fill(
        play, "ebus:server/a", "ebus:user/alice/b", "ebus:user/bob/c", "ebus:kernel/k1/d", "ebus:hub/e", "ebus:hub/g/f"
    )
    alice = Raw(play, "alice", "kernel", "k1", groups=("g",)).hello()
    assert _all(_pages(alice, limit=1)) == [
        "ebus:hub/e", "ebus:hub/g/f", "ebus:kernel/k1/d", "ebus:server/a", "ebus:user/alice/b",
    ]  # fmt: skip
    assert _all(_pages(alice, find="ebus:user/")) == ["ebus:user/alice/b"]
    assert _all(_pages(Raw(play, "bob").hello())) == ["ebus:hub/e", "ebus:server/a", "ebus:user/bob/c"]


def test_list_hides_the_buses_that_access_lists_close(play):
    _fill(play, "ebus:server/hers", readers=("alice",), writers=("alice",))
    _fill(play, "ebus:server/ours")
    assert _all(_pages(Raw(play, "bob").hello())) == ["ebus:server/ours"]
    assert _all(_pages(Raw(play, "alice").hello())) == ["ebus:server/hers", "ebus:server/ours"]


def test_list_finds_a_text_in_addresses(play):
    _fill(play, *_names(200))
    assert _pages(Raw(play).hello(), find="server B00017") == [["ebus:server/b00017"]]


def test_law_10_list_that_finds_nothing_looks_at_a_bounded_number_of_buses(play):
    _fill(play, *_names(2 * EXAMINED + 10))
    pages = _pages(Raw(play).hello(), find="nowhere")
    assert pages == [[], [], []]


def test_law_10_list_is_bounded_in_bytes_whatever_the_specifications():
    play = Play(limits=Limits(page_bytes=10_000))
    _fill(play, *_names(20), schema={"description": "x" * 3_000})
    pages = _pages(Raw(play).hello())
    assert max(map(len, pages)) <= 4
    assert _all(pages) == _names(20)


def test_deleted_bus_leaves_the_list(play):
    alice = Raw(play, "alice").hello()
    (opened,) = alice.say(frames.Open(1, "server", "votes"))
    assert _pages(alice) == [["ebus:server/votes"]]
    alice.say(frames.Delete(2, opened.bus))
    assert _pages(alice) == [[]]
    assert play.broker.registry.catalogue._scopes == []


def test_list_survives_a_restart(play):
    Raw(play, "alice").hello().say(frames.Open(1, "server", "votes"))
    play.restart()
    assert _pages(Raw(play, "bob").hello()) == [["ebus:server/votes"]]


def test_list_after_something_that_is_no_address_is_refused(play):
    (error,) = Raw(play).hello().say(frames.List(1, "votes"))
    assert (error.code, error.req) == ("invalid_name", 1)


def test_authorizer_is_asked_about_a_page_and_remembered():
    asked = []

    def authorize(who, address):
        asked.append(address.name)
        return address.name != "secret", False

    play = Play(authorize=authorize)
    _fill(play, "ebus:server/open", "ebus:server/secret")
    alice = Raw(play, "alice").hello()
    assert _pages(alice) == [["ebus:server/open"]]
    assert _pages(alice) == [["ebus:server/open"]]
    assert asked == ["open", "secret"]


# --- watching -------------------------------------------------------------------------------------------------------


def _looked(play: Play, raw: Raw) -> list[Any]:
    play.pass_time(WATCH_SECONDS)
    play.take_turns()
    return [frame for frame in raw.heard() if isinstance(frame, frames.Listed) and frame.changes]


def test_watched_page_tells_what_comes_changes_and_goes(play):
    alice, bob = Raw(play, "alice").hello(), Raw(play, "bob").hello()
    alice.say(frames.List(7, watch=True))
    assert _looked(play, alice) == []
    (opened,) = bob.say(frames.Open(1, "server", "votes"))
    (change,) = _looked(play, alice)
    assert (change.req, [bus["address"] for bus in change.buses]) == (7, ["ebus:server/votes"])
    bob.say(frames.Publish(opened.bus, 1, frames.NIL), frames.Publish(opened.bus, 2, frames.NIL))
    (change,) = _looked(play, alice)
    assert [bus["last"] for bus in change.buses] == [2], "changes are conflated"
    assert _looked(play, alice) == []
    bob.say(frames.Delete(2, opened.bus))
    (change,) = _looked(play, alice)
    assert (change.buses, change.removed) == ([], ["ebus:server/votes"])


def test_watch_ends_by_a_request_with_its_number_and_with_its_connection(play):
    alice = Raw(play, "alice").hello()
    alice.say(frames.List(1, watch=True), frames.List(1, find="x", watch=True))
    assert len(play.broker._listings) == 1
    alice.say(frames.List(2))
    assert len(play.broker._listings) == 1
    alice.say(frames.List(1))
    assert len(play.broker._listings) == 0
    alice.say(frames.List(3, watch=True))
    alice.player.lose()
    assert len(play.broker._listings) == 0


def test_law_10_watched_pages_of_a_connection_are_bounded(play):
    alice = Raw(play, "alice").hello()
    answers = alice.say(*(frames.List(n, watch=True) for n in range(1, WATCHES + 2)))
    assert (answers[-1].code, answers[-1].req) == ("too_large", WATCHES + 1)
    assert len(play.broker._listings) == WATCHES


@pytest.mark.parametrize("buses", [10, 1_000])
def test_law_10_watching_costs_a_page_however_many_buses_there_are(play, buses, monkeypatch):
    looked_at = []
    catalogue = play.broker.registry.catalogue
    _fill(play, *_names(buses))
    after = catalogue.after

    def counted(*given):
        for listed in after(*given):
            looked_at.append(listed)
            yield listed

    monkeypatch.setattr(catalogue, "after", counted)
    watchers = [Raw(play, f"user{n}").hello() for n in range(5)]
    for watcher in watchers:
        watcher.say(frames.List(1, limit=10, watch=True))
    looked_at.clear()
    play.pass_time(WATCH_SECONDS)
    play.take_turns()
    assert len(looked_at) <= 5 * 11
