"""Where a bus lives, and who gets in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebus_jupyter.core.protocol.address import Address, check_name, check_scope, may_enter, resolve
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import Forbidden, InvalidName, NoSuchBus, UnknownScope

SECRET = b"secret"
KERNEL = Participant("k", "kernel", "alice", kernel_id="k1")
PAGE = Participant("p", "page", "alice", groups=("staff",))
BOB = Participant("b", "page", "bob")


@given(st.sampled_from(["kernel", "user", "hub"]), st.text(min_size=1), st.text(min_size=1))
def test_a_uri_names_one_bus_whatever_its_owner_is_called(scope, owner, name):
    assert Address.parse(str(Address(scope, owner, name))) == Address(scope, owner, name)


@pytest.mark.parametrize(
    "uri", ["", "votes", "http:server/votes", "ebus:", "ebus:server", "ebus:server/", "ebus:a/b/c/d"]
)
def test_what_is_no_uri_says_what_one_looks_like(uri):
    with pytest.raises(InvalidName, match="ebus:server/votes"):
        Address.parse(uri)


@pytest.mark.parametrize("name", ["votes", "a", "_x", "1", "a.b-c:d@e", "été", "票"])
def test_a_good_name(name):
    assert check_name(name, 10) == name


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "~x", "-x", ".x", "a" * 11, "a\n", "a\0", None, 5])
def test_a_bad_name_says_what_a_good_one_is(name):
    with pytest.raises(InvalidName, match="1 to 10 letters"):
        check_name(name, 10)


@pytest.mark.parametrize("scope", ["", "galaxy", "server:x", "hub:", "hub:a:", "kernel:k1", None, "x" * 10_000])
def test_an_unknown_scope_says_which_there_are(scope):
    with pytest.raises(UnknownScope, match="kernel, user, server, hub") as unknown:
        check_scope(scope)
    assert len(str(unknown.value)) < 300


@pytest.mark.parametrize(
    ("scope", "who", "address"),
    [
        ("server", BOB, Address("server", "", "x")),
        ("user", BOB, Address("user", "bob", "x")),
        ("kernel", KERNEL, Address("kernel", "k1", "x")),
    ],
)
def test_a_scope_means_ones_own(scope, who, address):
    assert resolve(scope, "x", who) == address
    assert may_enter(address, who, "", SECRET)


def test_a_page_has_no_kernel_scope_of_its_own():
    with pytest.raises(Forbidden, match="open the bus in the kernel"):
        resolve("kernel", "x", PAGE)


def test_scope_hub_needs_a_shared_engine_and_says_how_to_get_one():
    with pytest.raises(UnknownScope, match="jupyter ebus serve"):
        resolve("hub", "x", PAGE)
    assert resolve("hub:staff", "x", PAGE, shared_engine=True) == Address("hub", "staff", "x")
    with pytest.raises(NoSuchBus):
        resolve("hub:staff", "x", BOB, shared_engine=True)


@pytest.mark.parametrize(
    "address",
    [
        Address("user", "alice", "x"),
        Address("kernel", "k1", "x"),
        Address("kernel", "", "x"),
        Address("hub", "staff", "x"),
        Address("server", "alice", "x"),
        Address("server", "", "~unnamed"),
        Address("galaxy", "", "x"),
    ],
)
def test_law_7_others_stay_out_unless_they_hold_the_capability(address):
    assert not may_enter(address, BOB, "", SECRET)
    assert not may_enter(address, BOB, address.capability(b"another secret"), SECRET)
    assert not may_enter(address, BOB, "é" * 40, SECRET)
    assert not may_enter(address, BOB, Address("server", "", "other").capability(SECRET), SECRET)
    assert may_enter(address, BOB, address.capability(SECRET), SECRET)


def test_the_server_itself_enters_everywhere():
    assert may_enter(Address("kernel", "k1", "x"), Participant("s", "server", "server"), "", SECRET)
