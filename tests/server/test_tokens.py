"""Kernel tokens, and participants made of users, without a server."""

from __future__ import annotations

import pytest
from jupyter_server.auth.identity import User

from ebus_jupyter.server.access import participant
from ebus_jupyter.server.tokens import Tokens


def test_token_identifies_its_kernel_until_revoked() -> None:
    tokens = Tokens()
    alices, bobs = tokens.issue("k1", User("alice")), tokens.issue("k2", User("bob"))
    found = tokens.find(alices)
    assert found is not None and found.user is not None
    assert (found.kernel_id, found.user.username) == ("k1", "alice")
    revoked: list[str] = []
    found.on_revoke.add(lambda: revoked.append("k1"))
    tokens.revoke("k1")
    assert revoked == ["k1"]
    assert tokens.find(alices) is None
    assert tokens.find(bobs) is not None


@pytest.mark.parametrize("guess", ["", "wrong", "\udc80", "é" * 10_000])
def test_guessed_token_is_not_found(guess: str) -> None:
    tokens = Tokens()
    tokens.issue("k1", None)
    assert tokens.find(guess) is None


def test_token_is_not_stored_in_plain_text() -> None:
    tokens = Tokens()
    secret = tokens.issue("k1", None)
    (grant,) = tokens._grants.values()
    assert secret.encode() not in [getattr(grant, name) for name in grant.__slots__]


def test_participant_has_the_groups_of_a_hub_user() -> None:
    user = User("alice", display_name="Alice A.")
    user.hub_user = {"groups": ["physics", "staff"]}  # type: ignore[attr-defined]
    who = participant("page", user)
    assert (who.user, who.name, who.groups) == ("alice", "Alice A.", ("physics", "staff"))
