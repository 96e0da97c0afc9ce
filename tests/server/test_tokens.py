"""Tokens, environments and the wrapped kernel manager, without a server."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_server import CallContext
from jupyter_server.auth.identity import User
from traitlets import HasTraits, Unicode

from ebus_jupyter.server import kernels
from ebus_jupyter.server.kernels import Kernels, Tokens, environment, participant, why_unreachable

# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_stands_for_its_kernel_until_it_is_revoked() -> None:
    tokens = Tokens()
    alices, bobs = tokens.issue("k1", User("alice")), tokens.issue("k2", User("bob"))
    found = tokens.find(alices)
    assert found is not None and found.user is not None
    assert (found.kernel_id, found.user.username) == ("k1", "alice")
    told: list[str] = []
    found.on_revoke.add(lambda: told.append("k1"))
    tokens.revoke("k1")
    assert told == ["k1"]
    assert tokens.find(alices) is None
    assert tokens.find(bobs) is not None


@pytest.mark.parametrize("guess", ["", "wrong", "\udc80", "é" * 10_000])
def test_a_guess_stands_for_nothing(guess: str) -> None:
    tokens = Tokens()
    tokens.issue("k1", None)
    assert tokens.find(guess) is None


def test_a_token_is_not_kept_as_it_is() -> None:
    tokens = Tokens()
    secret = tokens.issue("k1", None)
    (grant,) = tokens._grants.values()
    assert secret.encode() not in [getattr(grant, name) for name in grant.__slots__]


def test_a_hub_user_brings_groups_along() -> None:
    user = User("alice", display_name="Alice A.")
    user.hub_user = {"groups": ["physics", "staff"]}  # type: ignore[attr-defined]
    who = participant("page", user)
    assert (who.user, who.name, who.groups) == ("alice", "Alice A.", ("physics", "staff"))


# --- where a kernel connects ------------------------------------------------------------------------------------------


def app(**given: Any) -> SimpleNamespace:
    facts = {"ip": "localhost", "port": 8888, "base_url": "/", "sock": "", "certfile": "", "ssl_options": None}
    return SimpleNamespace(
        **{**facts, "client_ca": "", "gateway_config": SimpleNamespace(gateway_enabled=False), **given}
    )


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://localhost:8888/"),
        ({"ip": ""}, "http://127.0.0.1:8888/"),
        ({"ip": "0.0.0.0", "port": 9}, "http://127.0.0.1:9/"),
        ({"ip": "::"}, "http://[::1]:8888/"),
        ({"ip": "192.0.2.7"}, "http://192.0.2.7:8888/"),
        ({"base_url": "/user/ana maría/"}, "http://localhost:8888/user/ana%20mar%C3%ADa/"),
        ({"base_url": "/user/a%40b/"}, "http://localhost:8888/user/a%40b/"),
    ],
)
def test_a_kernel_is_told_an_address_that_it_can_reach(given: dict[str, Any], url: str) -> None:
    assert environment(app(**given)) == {"EBUS_URL": url}


@pytest.mark.parametrize("given", [{"certfile": "tls/my.pem"}, {"ssl_options": {"certfile": "tls/my.pem"}}])
def test_with_tls_a_kernel_is_told_which_certificate_to_trust(given: dict[str, Any]) -> None:
    found = environment(app(**given))
    assert found == {"EBUS_URL": "https://localhost:8888/", "EBUS_CERT": os.path.abspath("tls/my.pem")}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"sock": "/run/jupyter.sock"}, "unix socket"),
        ({"gateway_config": SimpleNamespace(gateway_enabled=True)}, "gateway"),
        ({"client_ca": "ca.pem"}, "certificate"),
    ],
)
def test_where_kernels_cannot_connect_they_are_told_nothing_and_the_log_says_why(
    given: dict[str, Any], why: str
) -> None:
    assert environment(app(**given)) == {}
    assert why in why_unreachable(app(**given))


# --- the kernel manager -----------------------------------------------------------------------------------------------


class OneKernel(HasTraits):
    execution_state = Unicode("starting")

    def add_restart_callback(self, callback: Any, event: str) -> None:
        pass


class Manager:
    """As much of a kernel manager as matters here."""

    def __init__(self) -> None:
        self.env: dict[str, str] = {}
        self.kernels: dict[str, OneKernel] = {}
        self.broken = False

    def __contains__(self, kernel_id: str) -> bool:
        return kernel_id in self.kernels

    def new_kernel_id(self, **kwargs: Any) -> str:
        return f"k{len(self.kernels) + 1}"

    def get_kernel(self, kernel_id: str) -> OneKernel:
        return self.kernels[kernel_id]

    async def start_kernel(self, *, kernel_id: str, env: dict[str, str], **kwargs: Any) -> str:
        self.env = env
        if self.broken:
            raise RuntimeError("no such kernelspec")
        self.kernels[kernel_id] = OneKernel()
        return kernel_id

    async def restart_kernel(self, kernel_id: str) -> None:
        pass

    def remove_kernel(self, kernel_id: str) -> OneKernel | None:
        return self.kernels.pop(kernel_id, None)


class Told:
    def __init__(self) -> None:
        self.said: list[str] = []

    def kernel_activity(self, kernel_id: str, activity: str) -> None:
        self.said.append(activity)

    def kernel_stopped(self, kernel_id: str) -> None:
        self.said.append("stopped")


def followed(reach: dict[str, str] | None = None) -> tuple[Any, Tokens, Told, Kernels]:
    manager, tokens, told = Manager(), Tokens(), Told()
    following = Kernels(manager, tokens, lambda: {"EBUS_URL": "http://here/"} if reach is None else reach, told)
    following.follow()
    return manager, tokens, told, following


@pytest.mark.asyncio
async def test_a_kernel_that_no_request_started_acts_for_nobody() -> None:
    manager, tokens, _, _ = followed()
    CallContext.set(CallContext.JUPYTER_HANDLER, None)
    await manager.start_kernel()
    grant = tokens.find(manager.env["EBUS_TOKEN"])
    assert grant is not None
    assert participant("kernel", grant.user, grant.kernel_id).user == ""


@pytest.mark.asyncio
async def test_what_the_caller_says_under_our_names_is_replaced_and_all_else_is_kept() -> None:
    manager, _, _, _ = followed()
    await manager.start_kernel(env={"EBUS_URL": "http://evil/", "EBUS_TOKEN": "chosen", "EBUS_CERT": "x", "LANG": "C"})
    assert manager.env["EBUS_URL"] == "http://here/"
    assert manager.env["EBUS_TOKEN"] != "chosen"
    assert "EBUS_CERT" not in manager.env
    assert manager.env["LANG"] == "C"


@pytest.mark.asyncio
async def test_a_kernel_without_an_env_of_its_own_inherits_the_servers() -> None:
    manager, _, _, _ = followed()
    await manager.start_kernel()
    assert manager.env["PATH"] == os.environ["PATH"]
    assert "EBUS_TOKEN" not in os.environ


@pytest.mark.asyncio
async def test_where_the_bus_is_out_of_reach_a_kernel_starts_all_the_same() -> None:
    manager, _, _, _ = followed(reach={})
    await manager.start_kernel(env={"EBUS_URL": "http://elsewhere/"})
    assert not [name for name in manager.env if name.startswith("EBUS_")]


@pytest.mark.asyncio
async def test_a_kernel_that_did_not_start_leaves_no_token() -> None:
    manager, tokens, _, _ = followed()
    manager.broken = True
    with pytest.raises(RuntimeError):
        await manager.start_kernel()
    assert tokens.find(manager.env["EBUS_TOKEN"]) is None


@pytest.mark.asyncio
async def test_a_moment_of_work_is_not_reported_and_a_long_cell_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "SETTLE_SECONDS", 0.01)
    manager, _, told, _ = followed()
    kernel = manager.get_kernel(await manager.start_kernel())

    async def settled() -> None:
        await asyncio.sleep(0.05)

    kernel.execution_state = "idle"
    await settled()
    for _ in range(10):
        kernel.execution_state = "busy"
        kernel.execution_state = "idle"
    await settled()
    assert told.said == ["idle"]
    kernel.execution_state = "busy"
    await settled()
    assert told.said == ["idle", "busy"]


@pytest.mark.asyncio
async def test_however_a_kernel_ends_it_is_dead_and_then_reclaimed_once() -> None:
    manager, tokens, told, _ = followed()
    kernel_id = await manager.start_kernel()
    secret = manager.env["EBUS_TOKEN"]
    manager.remove_kernel(kernel_id)
    manager.remove_kernel(kernel_id)
    assert told.said == ["dead", "stopped"]
    assert tokens.find(secret) is None


@pytest.mark.asyncio
async def test_a_restart_is_told_before_it_happens() -> None:
    manager, _, told, _ = followed()
    kernel_id = await manager.start_kernel()
    manager.get_kernel(kernel_id).execution_state = "idle"
    await manager.restart_kernel(kernel_id)
    assert told.said == ["restarting", "idle"]


@pytest.mark.asyncio
async def test_once_released_the_manager_is_as_it_was() -> None:
    manager, _, _, following = followed()
    following.release()
    await manager.start_kernel(kernel_id="k9", env={})
    assert manager.env == {}
