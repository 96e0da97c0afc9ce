"""Law 6: identity is stamped, never claimed."""

from __future__ import annotations

from ebus_jupyter.core.protocol import frames
from tests.core.play import Raw


def test_law_6_sender_is_stamped_from_the_connection(play):
    kernel = play.player("alice", "kernel", "k1", groups=("staff",))
    bus = kernel.opened()
    hears = kernel.reader(bus)
    kernel.written(bus, {"sender": "bob", "user": "root"})
    sender = kernel.read(hears)[0].sender
    assert (sender.kind, sender.user, sender.name, sender.kernel_id) == ("kernel", "alice", "Alice", "k1")
    assert sender.groups == (), "groups are nobody else's business"


def test_law_6_instance_is_never_shown_to_others(play):
    alice = play.player("alice")
    bus = alice.opened()
    bob = Raw(play, "bob").hello()
    (opened,) = bob.say(frames.Open(1, "server", "votes"))
    bob.say(frames.SetPresence(opened.bus, watch=True), frames.Subscribe(2, opened.bus))
    alice.written(bus, "tea")
    heard = bob.heard()
    assert alice.session.instance not in repr(heard)


def test_law_6_reconnected_instance_ends_its_old_connection(play):
    alice = play.player("alice")
    bus = alice.opened()
    again = Raw(play, "alice")
    (bye, *_) = again.say(frames.Hello(frames.VERSION, alice.session.instance)), alice.hear()
    assert isinstance(bye[0], frames.Welcome)
    assert alice.ended is not None
    assert "connected again" in str(alice.ended.error)
    assert len(play.broker.registry.buses) == 1
    assert bus.participants == {}
