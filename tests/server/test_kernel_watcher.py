"""The kernels' environment, and the wrapped kernel manager, without a server."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_server import CallContext
from traitlets import HasTraits, Unicode

from ebus_jupyter.server import kernels
from ebus_jupyter.server.access import participant
from ebus_jupyter.server.identity import Identities
from ebus_jupyter.server.kernels import KernelWatcher, environment, unreachable_reason
from ebus_jupyter.server.tokens import Tokens

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
def test_environment_has_a_reachable_url(given: dict[str, Any], url: str) -> None:
    assert environment(app(**given)) == {"EBUS_URL": url}


@pytest.mark.parametrize("given", [{"certfile": "tls/my.pem"}, {"ssl_options": {"certfile": "tls/my.pem"}}])
def test_environment_names_the_certificate_with_tls(given: dict[str, Any]) -> None:
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
def test_environment_is_empty_where_kernels_cannot_connect(given: dict[str, Any], why: str) -> None:
    assert environment(app(**given)) == {}
    assert why in unreachable_reason(app(**given))


# --- the kernel manager -----------------------------------------------------------------------------------------------


class OneKernel(HasTraits):
    execution_state = Unicode("starting")

    def add_restart_callback(self, callback: Any, event: str) -> None:
        pass


class Manager:
    """The parts of a kernel manager that the watcher uses."""

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


class Reports:
    def __init__(self) -> None:
        self.reported: list[str] = []

    def kernel_activity(self, kernel_id: str, activity: str) -> None:
        self.reported.append(activity)

    def kernel_stopped(self, kernel_id: str) -> None:
        self.reported.append("stopped")


def watched(variables: dict[str, str] | None = None) -> tuple[Any, Tokens, Reports, KernelWatcher]:
    manager, tokens, reports = Manager(), Tokens(), Reports()
    watcher = KernelWatcher(
        manager,
        tokens,
        lambda: {"EBUS_URL": "http://here/"} if variables is None else variables,
        reports,
        Identities(None, b"secret"),
    )
    watcher.start()
    return manager, tokens, reports, watcher


@pytest.mark.asyncio
async def test_kernel_started_outside_a_request_acts_for_nobody() -> None:
    manager, tokens, _, _ = watched()
    CallContext.set(CallContext.JUPYTER_HANDLER, None)
    await manager.start_kernel()
    grant = tokens.find(manager.env["EBUS_TOKEN"])
    assert grant is not None
    assert participant("kernel", grant.user, grant.kernel_id).user == ""


@pytest.mark.asyncio
async def test_reserved_variables_are_replaced_and_others_kept() -> None:
    manager, _, _, _ = watched()
    await manager.start_kernel(env={"EBUS_URL": "http://evil/", "EBUS_TOKEN": "chosen", "EBUS_CERT": "x", "LANG": "C"})
    assert manager.env["EBUS_URL"] == "http://here/"
    assert manager.env["EBUS_TOKEN"] != "chosen"
    assert "EBUS_CERT" not in manager.env
    assert manager.env["LANG"] == "C"


@pytest.mark.asyncio
async def test_kernel_without_an_environment_inherits_the_servers() -> None:
    manager, _, _, _ = watched()
    await manager.start_kernel()
    assert manager.env["PATH"] == os.environ["PATH"]
    assert "EBUS_TOKEN" not in os.environ


@pytest.mark.asyncio
async def test_kernel_starts_without_variables_where_it_cannot_connect() -> None:
    manager, _, _, _ = watched(variables={})
    await manager.start_kernel(env={"EBUS_URL": "http://elsewhere/"})
    assert not [name for name in manager.env if name.startswith("EBUS_")]


@pytest.mark.asyncio
async def test_failed_start_revokes_the_token() -> None:
    manager, tokens, _, _ = watched()
    manager.broken = True
    with pytest.raises(RuntimeError):
        await manager.start_kernel()
    assert tokens.find(manager.env["EBUS_TOKEN"]) is None


@pytest.mark.asyncio
async def test_short_activity_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "SETTLE_SECONDS", 0.01)
    manager, _, reports, _ = watched()
    kernel = manager.get_kernel(await manager.start_kernel())

    async def settled() -> None:
        await asyncio.sleep(0.05)

    kernel.execution_state = "idle"
    await settled()
    for _ in range(10):
        kernel.execution_state = "busy"
        kernel.execution_state = "idle"
    await settled()
    assert reports.reported == ["idle"]
    kernel.execution_state = "busy"
    await settled()
    assert reports.reported == ["idle", "busy"]


@pytest.mark.asyncio
async def test_removed_kernel_is_reported_dead_and_stopped_once() -> None:
    manager, tokens, reports, _ = watched()
    kernel_id = await manager.start_kernel()
    secret = manager.env["EBUS_TOKEN"]
    manager.remove_kernel(kernel_id)
    manager.remove_kernel(kernel_id)
    assert reports.reported == ["dead", "stopped"]
    assert tokens.find(secret) is None


@pytest.mark.asyncio
async def test_restart_is_reported_before_it_happens() -> None:
    manager, _, reports, _ = watched()
    kernel_id = await manager.start_kernel()
    manager.get_kernel(kernel_id).execution_state = "idle"
    await manager.restart_kernel(kernel_id)
    assert reports.reported == ["restarting", "idle"]


@pytest.mark.asyncio
async def test_stop_restores_the_kernel_manager() -> None:
    manager, _, _, watcher = watched()
    watcher.stop()
    await manager.start_kernel(kernel_id="k9", env={})
    assert manager.env == {}
