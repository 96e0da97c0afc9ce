"""Addresses of buses, and the right to enter them."""

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
def test_uri_round_trips_for_any_owner_and_name(scope, owner, name):
    assert Address.parse(str(Address(scope, owner, name))) == Address(scope, owner, name)


@pytest.mark.parametrize(
    "uri", ["", "votes", "http:server/votes", "ebus:", "ebus:server", "ebus:server/", "ebus:a/b/c/d"]
)
def test_invalid_uri_error_shows_a_valid_one(uri):
    with pytest.raises(InvalidName, match="ebus:server/votes"):
        Address.parse(uri)


@pytest.mark.parametrize("name", ["votes", "a", "_x", "1", "a.b-c:d@e", "été", "票"])
def test_valid_name_is_accepted(name):
    assert check_name(name, 10) == name


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "~x", "-x", ".x", "a" * 11, "a\n", "a\0", None, 5])
def test_invalid_name_error_states_the_rule(name):
    with pytest.raises(InvalidName, match="1 to 10 letters"):
        check_name(name, 10)


@pytest.mark.parametrize("scope", ["", "galaxy", "server:x", "hub:", "hub:a:", "kernel:k1", None, "x" * 10_000])
def test_unknown_scope_error_lists_the_scopes(scope):
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
def test_scope_resolves_to_the_participants_own(scope, who, address):
    assert resolve(scope, "x", who) == address
    assert may_enter(address, who, "", SECRET)


def test_page_has_no_kernel_scope_of_its_own():
    with pytest.raises(Forbidden, match="open the bus in the kernel"):
        resolve("kernel", "x", PAGE)


def test_hub_scope_without_shared_engine_says_how_to_get_one():
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
def test_law_7_outsider_needs_the_capability(address):
    assert not may_enter(address, BOB, "", SECRET)
    assert not may_enter(address, BOB, address.capability(b"another secret"), SECRET)
    assert not may_enter(address, BOB, "é" * 40, SECRET)
    assert not may_enter(address, BOB, Address("server", "", "other").capability(SECRET), SECRET)
    assert may_enter(address, BOB, address.capability(SECRET), SECRET)


def test_server_may_enter_every_address():
    assert may_enter(Address("kernel", "k1", "x"), Participant("s", "server", "server"), "", SECRET)


def test_error_quotes_no_more_of_a_long_uri_than_a_reader_needs():
    with pytest.raises(InvalidName) as error:
        Address.parse("\U000e0001" * 100_000)
    assert len(str(error.value)) < 1000
