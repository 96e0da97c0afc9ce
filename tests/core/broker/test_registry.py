"""The lifetime of a bus: created, unloaded, deleted, ended with its creator or its kernel."""

from __future__ import annotations

import pytest

from ebus_jupyter.errors import BackendError, EbusError, NoSuchBus


def test_two_clients_exchange_messages(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened("votes", size=10), bob.opened("votes")
    she_hears, he_hears = alice.reader(hers), bob.reader(his)
    assert alice.written(hers, "tea") == 1
    assert bob.written(his, "coffee") == 2
    assert alice.values(she_hears) == bob.values(he_hears) == ["tea", "coffee"]
    assert bob.values(bob.reader(his, "start")) == ["tea", "coffee"]


# --- unnamed and kernel buses -----------------------------------------------------------------------------------------


def test_unnamed_bus_ends_some_time_after_its_creator(play):
    kernel, page = play.kernel(), play.player("bob", "page")
    bus = kernel.opened(None, "server")
    hers = page.opened(bus.name, "server", cap=bus.cap)
    kernel.lose()
    play.pass_time(play.limits.creator_seconds - 1)
    kernel.connect()
    play.settle()
    assert kernel.written(bus, "back in time") == 1
    kernel.lose()
    page.lose()
    page.connect()  # reconnects of other participants do not keep it
    page.say()
    play.pass_time(play.limits.creator_seconds + 1)
    play.settle()
    assert hers in page.refused
    assert "its maker has gone" in str(page.refused[hers]) or isinstance(page.refused[hers], NoSuchBus)
    assert not play.volatile._buses


def test_unnamed_bus_of_a_lost_creator_is_not_kept(play):
    kernel = play.kernel()
    kernel.open(None, "server")
    play.logs_work = False
    kernel.say()
    kernel.lose()
    play.logs_work = True
    play.work()
    play.pass_time(play.limits.creator_seconds + 1)
    assert not play.volatile._buses
    assert play.broker.counts() == {"connections": 0, "buses": 0}


def test_creator_closes_an_unnamed_bus_for_everyone(play):
    kernel, page = play.kernel(), play.player("bob", "page")
    bus = kernel.opened(None, "server")
    hers = page.opened(bus.name, "server", cap=bus.cap)
    kernel.session.leave(bus)
    play.settle()
    assert "its maker has closed" in str(page.refused[hers])


def test_kernel_scope_ends_when_the_kernel_is_shut_down(play):
    kernel, other = play.kernel("alice", "k1"), play.kernel("alice", "k2")
    bus, stays = kernel.opened("votes", "kernel"), other.opened("votes", "kernel")
    play.do(play.broker.registry.end_kernel("k1"))
    play.settle()
    assert "its kernel was shut down" in str(kernel.refused[bus])
    assert other.written(stays, 1) == 1


# --- named buses ------------------------------------------------------------------------------------------------------


def test_unused_named_bus_is_unloaded_and_loaded_again(play):
    alice = play.player()
    alice.written(alice.opened(size=5), "tea")
    alice.lose()
    play.pass_time(play.limits.gone_seconds + 1)
    play.pass_time(play.limits.creator_seconds + 1)
    assert play.broker.counts()["buses"] == 0
    bob = play.player("bob")
    assert bob.values(bob.reader(bob.opened(size=5), "start")) == ["tea"]


def test_deletion_names_its_author_and_starts_a_new_epoch(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    alice.written(hers, "tea")
    hears = bob.reader(his)
    alice.reply(alice.session.delete(hers))
    play.settle()
    with pytest.raises(EbusError, match="alice has deleted votes"):
        bob.read(hears)
    again = bob.opened()
    assert again.epoch != his.epoch
    assert bob.values(bob.reader(again, "start")) == []


def test_deletion_is_announced_only_after_the_log_is_deleted(play):
    alice, bob = play.player("alice"), play.player("bob")
    hers, his = alice.opened(), bob.opened()
    hears = bob.reader(his)
    play.logs_work = False
    req = alice.session.delete(hers)
    play.settle()
    assert req not in alice.replies
    assert bob.read(hears) == []  # the bus has not ended for bob yet
    play.logs_work = True
    play.settle()
    assert req in alice.replies
    with pytest.raises(EbusError, match="alice has deleted votes"):
        bob.read(hears)


def test_failed_append_is_reported_and_can_be_retried(play):
    alice = play.player()
    bus = alice.opened()
    play.failing = BackendError("the disk is full; free some space.")
    with pytest.raises(BackendError, match="free some space") as refused:
        alice.written(bus, "tea")
    assert refused.value.temporary
    play.failing = None
    assert alice.written(bus, "tea") == 1
