"""A broker, or something in front of it, that sends what no broker should."""

from __future__ import annotations

import pytest

from ebus_jupyter.core.client.events import WriteSettled
from ebus_jupyter.core.client.reader import Reader
from ebus_jupyter.core.client.session import Session
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import InvalidName, Lagged

YOU = Participant("me", "client", "ann")


def pack(*sent: frames.Frame) -> bytes:
    return frames.join([frames.encode(frame) for frame in sent])


def opened(**limits: int) -> tuple[Session, object]:
    session = Session("0" * 32)
    session.connection_made()
    channel = session.open("server", "votes", {})
    req = next(iter(session._requests._requests))
    session.receive_data(pack(frames.Welcome(1, YOU, "b", limits)), 0)
    session.receive_data(pack(frames.Opened(req, 7, "ebus:server/votes", "e1", 5, {})), 0)
    return session, channel


@pytest.mark.parametrize("count", [1 << 62, 10**15, 0, -1, -(1 << 62)])
@pytest.mark.parametrize("first", [1, -(1 << 62), 0])
def test_ok_for_more_writes_than_there_are_costs_no_more(first, count):
    session, channel = opened()
    ids = [session.publish(channel, b"\x01", 0) for _ in range(3)]
    found = session.receive_data(pack(frames.Ok(7, first, 6, count)), 0)
    settled = [event.id for event in found if isinstance(event, WriteSettled)]
    assert settled == [id_ for id_ in ids if first <= id_ < first + count]


@pytest.mark.parametrize("most", [0, -1, -(1 << 62)])
def test_limit_that_no_broker_has_is_no_limit(most):
    names = ("value_bytes", "batch_bytes", "presence_bytes", "publish_rate", "publish_burst")
    session, channel = opened(**dict.fromkeys(names, most))
    while session.data_to_send() is not None:
        pass
    session.publish(channel, b"\x01", 0)
    session.set_presence(channel, b"\x01")
    session.tick(0)
    assert session.data_to_send() is not None
    assert session.next_deadline() is None


def test_frames_before_a_wrong_one_have_their_events():
    session, channel = opened()
    id_ = session.publish(channel, b"\x01", 0)
    session.open("server", "other", {})
    req = max(session._requests._requests)
    events = []
    with pytest.raises(InvalidName):
        session.receive_data(pack(frames.Ok(7, id_, 6), frames.Opened(req, 8, "nonsense", "e", 0, {})), 0, events)
    assert events == [WriteSettled(id_, 6)]


@pytest.mark.parametrize(
    "page",
    [
        frames.Page(0, 7, "e1", 0, 0, True),
        frames.Page(0, 7, "e1", -5, 0, True),
        frames.Page(0, 7, "e1", 5, 0, False, [frames.NIL]),
        frames.Page(0, 7, "e1", 5, 0, True, [frames.NIL]),
    ],
)
def test_page_that_leads_nowhere_is_missed_and_not_requested_for_ever(page):
    session, channel = opened()
    reader = Reader(session, channel, "start")
    req = max(session._requests._requests)
    session.receive_data(pack(frames.Subscribed(req, 7, "e1", 5, 5)), 0)
    page.req = reader.request_page()
    assert page.req
    session.receive_data(pack(page), 0)
    reader.page_received(page, None)
    with pytest.raises(Lagged):
        reader.read_nowait()
    assert reader.request_page() == 0
    session.receive_data(pack(frames.Delivery(7, 6, 1, 0.0, YOU, frames.NIL)), 0)
    found = reader.read_nowait()
    assert found is not None and found.offset == 6


@pytest.mark.parametrize("after", [object(), 1 << 70])
def test_request_that_cannot_be_encoded_is_not_sent_again(after):
    session, channel = opened()
    with pytest.raises((OverflowError, TypeError)):
        session.fetch(channel, after)
    session.connection_lost()
    session.connection_made()
    req = max(session._requests._requests)
    session.receive_data(
        pack(frames.Welcome(1, YOU, "b", {}), frames.Opened(req, 7, "ebus:server/votes", "e1", 5, {})), 0
    )
    assert session.live


@pytest.mark.parametrize("after", ["soon", float("nan"), float("inf"), -1, None, [], 1e300])
def test_refusal_with_an_odd_delay_stops_writing_for_a_bounded_time(after):
    session, channel = opened(publish_rate=10, publish_burst=10)
    id_ = session.publish(channel, b"\x01", 0)
    while session.data_to_send() is not None:
        pass
    refusal = frames.Error("rate_limited", "", id=id_, details={"limit": "publish_rate", "retry_after": after})
    session.receive_data(pack(refusal), 0)
    assert session.data_to_send() is not None
    session.receive_data(pack(frames.Pong(1)), 0)
    due = session.next_deadline()
    assert due is not None and 0 <= due <= 61
    session.tick(61)
    assert session.data_to_send() is not None


@pytest.mark.parametrize("code", ["closed", "lagged", "rate_limited", "of a newer version"])
def test_error_with_odd_details_settles_its_write(code):
    session, channel = opened()
    id_ = session.publish(channel, b"\x01", 0)
    details = {"text": 1, "self": 2, "code": 3, "args": 4, "with_traceback": 5, "skipped": "many", "resume_after": None}
    (event,) = session.receive_data(pack(frames.Error(code, "no", id=id_, details=details)), 0)
    assert isinstance(event, WriteSettled) and event.error is not None
