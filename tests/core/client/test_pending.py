"""Pending writes and requests: the fate of each when the connection is lost."""

from __future__ import annotations

import msgspec
import pytest

from ebus_jupyter.core.client.channel import Channel
from ebus_jupyter.core.client.pending import PendingRequests, PendingWrites
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.errors import RateLimited


def channel() -> Channel:
    return Channel("server", "votes", {}, "", "", create=True)


def test_lost_connection_drops_forgets_and_keeps_requests_by_kind():
    requests, votes = PendingRequests(), channel()
    opening = requests.add("open", frames.Open(0, "server", "votes", {}), votes)
    subscribing = requests.add("subscribe", frames.Subscribe(0, 1), votes)
    deleting = requests.add("delete", frames.Delete(0, 1), votes)
    listing = requests.add("list", frames.List(0))
    fetching = requests.add("fetch", frames.Fetch(0, 1), votes)
    assert requests.connection_lost() == [deleting]
    assert [frame.req for frame in requests.to_repeat()] == [listing]
    votes.number = 7
    assert requests.to_repeat_for(votes) == [frames.Fetch(fetching, 7)]
    assert [requests.pop(req) for req in (opening, subscribing, deleting)] == [None] * 3


def test_requests_of_one_bus_end_with_it():
    requests, votes, other = PendingRequests(), channel(), channel()
    mine, theirs = (requests.add("fetch", frames.Fetch(0, 1), each) for each in (votes, other))
    assert requests.pop_channel(votes) == [mine]
    assert requests.pop_all() == [theirs]


def test_write_is_answered_once():
    writes, votes = PendingWrites(limit=2), channel()
    for _ in range(2):
        writes.add(votes, frames.Publish(1, 0, frames.NIL))
    with pytest.raises(RateLimited):
        writes.add(votes, frames.Publish(1, 0, frames.NIL))
    assert writes.pop(1, 99) == [1, 2]
    assert writes.pop(1, 99) == []
    assert votes.unacked == {}


def test_law_8_bytes_without_an_answer_are_bounded():
    writes, votes = PendingWrites(limit=100, max_bytes=100), channel()
    large, small = msgspec.Raw(bytes(150)), msgspec.Raw(bytes(60))
    first = writes.add(votes, frames.Publish(1, 0, large))
    with pytest.raises(RateLimited):
        writes.add(votes, frames.Publish(1, 0, small))
    writes.pop(first)
    writes.add(votes, frames.Publish(1, 0, small))
    assert (writes.has_room(40), writes.has_room(41)) == (True, False)
