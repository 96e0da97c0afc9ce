"""Law 8 at the client: what the broker would not take is refused in the call, and never ends a connection."""

from __future__ import annotations

import pytest

from ebus_jupyter.core.client.session import EARLY_BYTES
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import OWNER
from ebus_jupyter.errors import FilterUnavailable, TooLarge
from tests.core.play import Play


def test_law_8_specification_that_cannot_be_sent_is_too_large():
    play = Play(limits=Limits(batch_bytes=2000, value_bytes=500))
    alice = play.player()
    bus = alice.opened()
    schema = {"description": "x" * 2000}
    with pytest.raises(TooLarge, match="batch_bytes"):
        alice.session.open("server", "other", {"schema": schema})
    with pytest.raises(TooLarge, match="batch_bytes"):
        alice.session.reopen(bus, {"schema": schema})
    assert alice.written(bus, "tea") == 1


def test_law_8_specification_is_bounded_before_the_welcome():
    alice = Play().player()
    alice.lose()
    with pytest.raises(TooLarge, match="batch_bytes"):
        alice.session.open("server", "votes", {"readers": ["x" * Limits().batch_bytes]})


def test_law_8_first_message_is_small_before_the_limits_are_known(play):
    alice = play.player()
    for n in range(100):
        alice.session.open("server", f"votes-{n}", {"readers": ["x" * 1000]})
    sizes = []
    while (data := alice.session.data_to_send()) is not None:
        sizes.append(len(data))
    assert sum(sizes) > EARLY_BYTES
    assert max(sizes) <= EARLY_BYTES


@pytest.mark.parametrize("is_open", [True, False])
def test_law_8_presence_over_the_server_s_bound_is_too_large(is_open):
    play = Play(limits=Limits(presence_bytes=100) if is_open else Limits())
    alice = play.player()
    bus = alice.opened() if is_open else alice.session.open("server", "votes", {})
    with pytest.raises(TooLarge, match="presence_bytes"):
        alice.session.set_presence(bus, b"x" * 5000)
    assert bus.state is None


def test_law_8_filter_answer_that_cannot_be_sent_is_a_failure():
    play = Play(limits=Limits(batch_bytes=4000, value_bytes=500))
    alice, bob = play.player("alice"), play.player("bob")
    his = bob.opened(filter=OWNER)
    bob.filter = lambda text, sender: text * 1000
    hers = alice.opened()
    with pytest.raises(FilterUnavailable, match="batch_bytes"):
        alice.written(hers, "tea" * 5)
    bob.filter = lambda text, sender: text
    assert bob.written(his, "tea") == 1
