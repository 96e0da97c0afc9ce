"""Connects the kernels of this server to its broker.

When the server starts a kernel, ``EBUS_URL`` and ``EBUS_TOKEN`` (and ``EBUS_CERT``, on a server with TLS) are put into the
kernel's environment. Neither a request nor the server's own environment can choose them: values under those names are
replaced. A request for a kernel id that is already running gets no new token.

When the server forgets a kernel, for whatever reason (shut down, culled, dead), its token is revoked, its connections are
closed and its scope is reclaimed. Traffic on a bus does not count as a kernel's activity: a kernel that only listens is
culled like an idle one.

The broker is told what each kernel is doing (busy, idle, restarting, dead). A cell shorter than `SETTLE_SECONDS` is not
reported, because every message on a widget's comm makes a kernel busy for a moment.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from jupyter_core.utils import ensure_async

from .identity import Identities
from .tokens import Tokens

SETTLE_SECONDS = 0.2
"""The time from a change of a kernel's state until it is reported."""

VARIABLES = ("EBUS_URL", "EBUS_TOKEN", "EBUS_CERT")

_ACTIVITY = {
    "busy": "busy",
    "idle": "idle",
    "starting": "restarting",  # except at the first start, see `KernelWatcher._report_state`
    "restarting": "restarting",
    "autorestarting": "restarting",
}


class KernelListener(Protocol):
    """Receives the reports of a `KernelWatcher`; the broker does."""

    def kernel_activity(self, kernel_id: str, activity: str) -> None: ...
    def kernel_stopped(self, kernel_id: str) -> None: ...


# --- where a kernel connects ------------------------------------------------------------------------------------------


def unreachable_reason(serverapp: Any) -> str:
    """Explain why kernels of this server can't connect to its buses; "" where they can."""
    if serverapp.sock:
        return "it listens on a unix socket, which the kernels' client can't use; give it a port (ServerApp.port)"
    if getattr(serverapp, "gateway_config", None) is not None and serverapp.gateway_config.gateway_enabled:
        return "its kernels run elsewhere, behind a gateway; give them EBUS_URL and EBUS_TOKEN there"
    if serverapp.client_ca:
        return "it requires a certificate of every client (ServerApp.client_ca), and kernels have none"
    return ""


def environment(serverapp: Any) -> dict[str, str]:
    """Return the variables, except the token, by which a kernel on this machine connects to ``serverapp``.

    The result is empty where kernels can't connect (`unreachable_reason`).
    """
    if unreachable_reason(serverapp):
        return {}
    host = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(serverapp.ip, serverapp.ip)
    if ":" in host:
        host = f"[{host}]"
    base = quote(serverapp.base_url, safe="/%@:+,~")
    certificate = serverapp.certfile or (serverapp.ssl_options or {}).get("certfile", "")
    variables = {"EBUS_URL": f"{'https' if certificate else 'http'}://{host}:{serverapp.port}{base}"}
    if certificate:
        variables["EBUS_CERT"] = str(Path(certificate).resolve())
    return variables


# --- kernels ----------------------------------------------------------------------------------------------------------


class _Kernel:
    """A running kernel: its manager, its last reported activity, and the timer of the next report."""

    __slots__ = ("has_run", "manager", "reported", "timer")

    def __init__(self, manager: Any) -> None:
        self.manager = manager
        self.reported = ""
        self.has_run = False
        self.timer: asyncio.TimerHandle | None = None


class KernelWatcher:
    """Gives each kernel of one kernel manager its token, and reports its activity from start to end.

    jupyter_server has no hook for a kernel's environment, so four methods of the manager are wrapped. The server's REST
    services (kernels and sessions) and other extensions all call them.

    Args:
        manager: The server's `MappingKernelManager`.
        tokens: Issues and revokes the kernels' tokens.
        environment: Returns the other variables of a kernel's environment; empty where kernels can't connect.
        listener: Receives the kernels' activity.
        identities: Knows the user of the request that starts a kernel.
    """

    def __init__(
        self,
        manager: Any,
        tokens: Tokens,
        environment: Callable[[], dict[str, str]],
        listener: KernelListener,
        identities: Identities,
    ) -> None:
        self._manager = manager
        self._tokens = tokens
        self._environment = environment
        self._listener = listener
        self._identities = identities
        self._kernels: dict[str, _Kernel] = {}
        self._wrapped: dict[str, Any] = {}
        self._starting: set[str] = set()

    def start(self) -> None:
        """Wrap the manager's methods. Kernels that were started before are not known."""
        wrappers = {
            "start_kernel": self._start_kernel,
            "restart_kernel": self._restart_kernel,
            "remove_kernel": self._remove_kernel,
            "update_env": self._update_env,
        }
        for name, wrapper in wrappers.items():
            original = getattr(self._manager, name, None)
            if original is not None:
                self._wrapped[name] = original
                setattr(self._manager, name, wrapper)

    def stop(self) -> None:
        """Restore the manager's methods. Tokens that were issued stay valid."""
        for name, original in self._wrapped.items():
            setattr(self._manager, name, original)
        self._wrapped.clear()
        for kernel_id in list(self._kernels):
            self._forget(kernel_id)

    def report(self, kernel_id: str) -> None:
        """Report a kernel's activity now, even if it has not changed (the kernel has just connected)."""
        kernel = self._kernels.get(kernel_id)
        if kernel is not None:
            kernel.reported = ""
            self._report_state(kernel_id)

    # --- the wrapped methods ----------------------------------------------------------------------------------------

    async def _start_kernel(self, *args: Any, kernel_id: str | None = None, **kwargs: Any) -> str:
        start = self._wrapped["start_kernel"]
        if kernel_id is not None and (kernel_id in self._manager or kernel_id in self._starting):
            return str(await ensure_async(start(*args, kernel_id=kernel_id, **kwargs)))
        kernel_id = kernel_id or str(self._manager.new_kernel_id(**kwargs))
        env = {**(kwargs.pop("env", None) or os.environ)}
        for name in VARIABLES:  # this server may itself run in a kernel of another server
            env.pop(name, None)
        variables = self._environment()
        if variables:
            env |= variables | {"EBUS_TOKEN": self._tokens.issue(kernel_id, self._identities.of_request())}
        self._starting.add(kernel_id)
        try:
            started = str(await ensure_async(start(*args, kernel_id=kernel_id, env=env, **kwargs)))
        except BaseException:
            self._tokens.revoke(kernel_id)
            raise
        finally:
            self._starting.discard(kernel_id)
        self._watch(started)
        return started

    async def _restart_kernel(self, kernel_id: str, *args: Any, **kwargs: Any) -> Any:
        self._report_activity(kernel_id, "restarting")
        try:
            result = await ensure_async(self._wrapped["restart_kernel"](kernel_id, *args, **kwargs))
        except BaseException:
            self._report_state(kernel_id)
            raise
        if asyncio.isfuture(result):
            result.add_done_callback(lambda _: self._report_state(kernel_id))
        else:
            self._report_state(kernel_id)
        return result

    def _remove_kernel(self, kernel_id: str, *args: Any, **kwargs: Any) -> Any:
        removed = self._wrapped["remove_kernel"](kernel_id, *args, **kwargs)
        self._tokens.revoke(kernel_id)
        self._report_activity(kernel_id, "dead")
        if self._forget(kernel_id):
            self._listener.kernel_stopped(kernel_id)
        return removed

    def _update_env(self, *, kernel_id: str, env: dict[str, str]) -> Any:
        # When a session is renamed, jupyter_server passes its own whole environment.
        kept = {name: value for name, value in env.items() if name not in VARIABLES}
        return self._wrapped["update_env"](kernel_id=kernel_id, env=kept)

    # --- activity ---------------------------------------------------------------------------------------------------

    def _watch(self, kernel_id: str) -> None:
        if kernel_id not in self._manager:  # it died during its start
            self._tokens.revoke(kernel_id)
            return
        manager = self._manager.get_kernel(kernel_id)
        self._kernels[kernel_id] = _Kernel(manager)
        if hasattr(manager, "has_trait") and manager.has_trait("execution_state"):
            manager.observe(lambda change: self._state_changed(kernel_id), "execution_state")
        manager.add_restart_callback(lambda: self._report_activity(kernel_id, "restarting"), "restart")

    def _forget(self, kernel_id: str) -> bool:
        kernel = self._kernels.pop(kernel_id, None)
        if kernel is not None and kernel.timer is not None:
            kernel.timer.cancel()
        return kernel is not None

    def _state_changed(self, kernel_id: str) -> None:
        kernel = self._kernels.get(kernel_id)
        if kernel is not None and kernel.timer is None:
            kernel.timer = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._report_state, kernel_id)

    def _report_state(self, kernel_id: str) -> None:
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            return
        if kernel.timer is not None:
            kernel.timer.cancel()
            kernel.timer = None
        state = getattr(kernel.manager, "execution_state", None) or ""
        kernel.has_run = kernel.has_run or state in ("busy", "idle")
        if kernel.has_run and state in _ACTIVITY:
            self._report_activity(kernel_id, _ACTIVITY[state])

    def _report_activity(self, kernel_id: str, activity: str) -> None:
        kernel = self._kernels.get(kernel_id)
        if kernel is not None and kernel.reported != activity:
            kernel.reported = activity
            self._listener.kernel_activity(kernel_id, activity)
