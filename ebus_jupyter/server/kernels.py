"""How a kernel finds the bus, and who it is there.

When the server starts a kernel, it puts ``EBUS_URL`` and ``EBUS_TOKEN`` (and ``EBUS_CERT``, on a server with TLS) into
the kernel's environment. The rules:

- *One token a kernel*, random, bound to the kernel's id and to the user whose request started it. A kernel that no
  request started (a scheduler, another extension) acts for nobody: its user is "", which no identity provider can give.
- *Nobody chooses it.* What a request or the server's own environment says under those names is replaced. Asking for a
  kernel id that is running gives no new token.
- *It lives as long as the kernel*: over restarts, until the server forgets the kernel, by whatever way (shut down,
  culled, dead). Then its connections end and its scope is reclaimed.
- *The server keeps no token*, only a hash of it.

A token says which kernel speaks; it does not wall kernels off from each other, since all run as one OS user.
Traffic on a bus does not count as a kernel's activity: a kernel that only listens is culled like an idle one.

What a kernel is doing (busy, idle, restarting, dead) is passed on to the broker. A cell shorter than `SETTLE_SECONDS`
is not reported: every message on a widget's comm makes a kernel busy for a moment.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from jupyter_core.utils import ensure_async
from jupyter_server import CallContext
from jupyter_server.auth.identity import User

from ebus_jupyter.core.protocol.message import Kind, Participant

SETTLE_SECONDS = 0.2
VARIABLES = ("EBUS_URL", "EBUS_TOKEN", "EBUS_CERT")

_ACTIVITY = {
    "busy": "busy",
    "idle": "idle",
    "starting": "restarting",  # but for the first time, see `_settled`
    "restarting": "restarting",
    "autorestarting": "restarting",
}


class Listener(Protocol):
    """What is told about kernels: the broker."""

    def kernel_activity(self, kernel_id: str, activity: str) -> None: ...
    def kernel_stopped(self, kernel_id: str) -> None: ...


def participant(kind: Kind, user: User | None, kernel_id: str = "") -> Participant:
    """Who a connection is, from what the identity provider knows. The broker adds the id."""
    if user is None:
        return Participant("", kind, "", "", kernel_id)
    groups = getattr(user, "groups", None) or (getattr(user, "hub_user", None) or {}).get("groups") or ()
    return Participant("", kind, user.username, user.display_name or user.name, kernel_id, tuple(map(str, groups)))


# --- tokens -----------------------------------------------------------------------------------------------------------


class Grant:
    """What one token stands for. ``on_revoke`` are called, once, when it is good no more."""

    __slots__ = ("_digest", "kernel_id", "on_revoke", "user")

    def __init__(self, digest: bytes, kernel_id: str, user: User | None) -> None:
        self._digest = digest
        self.kernel_id = kernel_id
        self.user = user
        self.on_revoke: set[Callable[[], None]] = set()

    def is_for(self, digest: bytes) -> bool:
        return hmac.compare_digest(self._digest, digest)


class Tokens:
    """The tokens of the kernels that run."""

    def __init__(self) -> None:
        self._grants: dict[str, Grant] = {}

    def issue(self, kernel_id: str, user: User | None) -> str:
        """A fresh token for a kernel; one it had before is good no more."""
        self.revoke(kernel_id)
        token = "ebus-" + secrets.token_urlsafe(32)
        self._grants[kernel_id] = Grant(_digest(token), kernel_id, user)
        return token

    def find(self, token: str) -> Grant | None:
        """What ``token`` stands for. Takes as long for a near miss as for a wild guess."""
        digest, found = _digest(token), None
        for grant in self._grants.values():
            if grant.is_for(digest):
                found = grant
        return found

    def revoke(self, kernel_id: str) -> None:
        """The kernel's token is good no more. Without effect where it has none."""
        grant = self._grants.pop(kernel_id, None)
        if grant is not None:
            for told in tuple(grant.on_revoke):
                told()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


# --- where ------------------------------------------------------------------------------------------------------------


def why_unreachable(serverapp: Any) -> str:
    """Why kernels of this server can't reach its bus; "" where they can."""
    if serverapp.sock:
        return "it listens on a unix socket, which the kernels' client can't use; give it a port (ServerApp.port)"
    if getattr(serverapp, "gateway_config", None) is not None and serverapp.gateway_config.gateway_enabled:
        return "its kernels run elsewhere, behind a gateway; give them EBUS_URL and EBUS_TOKEN there"
    if serverapp.client_ca:
        return "it asks every client for a certificate (ServerApp.client_ca), and kernels have none"
    return ""


def environment(serverapp: Any) -> dict[str, str]:
    """The variables, but for the token, by which a kernel on this machine reaches ``serverapp``."""
    if why_unreachable(serverapp):
        return {}
    host = {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(serverapp.ip, serverapp.ip)
    if ":" in host:
        host = f"[{host}]"
    base = quote(serverapp.base_url, safe="/%@:+,~")
    certificate = serverapp.certfile or (serverapp.ssl_options or {}).get("certfile", "")
    found = {"EBUS_URL": f"{'https' if certificate else 'http'}://{host}:{serverapp.port}{base}"}
    if certificate:
        found["EBUS_CERT"] = str(Path(certificate).resolve())
    return found


# --- kernels ----------------------------------------------------------------------------------------------------------


class _Watched:
    __slots__ = ("due", "manager", "ran", "told")

    def __init__(self, manager: Any) -> None:
        self.manager = manager
        self.told = ""
        self.ran = False
        self.due: asyncio.TimerHandle | None = None


class Kernels:
    """Follows the kernels of one kernel manager from start to end.

    jupyter_server has no hook for a kernel's environment, so four methods of the manager are wrapped; both its REST
    services (kernels and sessions) and other extensions go through them.

    Args:
        manager: The server's `MappingKernelManager`.
        tokens: Where kernels get theirs.
        environment: What else goes into a kernel's environment; empty: this server's kernels can't reach the bus.
        listener: Is told what kernels do.
    """

    def __init__(
        self, manager: Any, tokens: Tokens, environment: Callable[[], dict[str, str]], listener: Listener
    ) -> None:
        self._manager = manager
        self._tokens = tokens
        self._environment = environment
        self._listener = listener
        self._watched: dict[str, _Watched] = {}
        self._original: dict[str, Any] = {}
        self._starting: set[str] = set()

    def follow(self) -> None:
        """Begin; kernels that are started from here on are known."""
        wrappers = {
            "start_kernel": self._start_kernel,
            "restart_kernel": self._restart_kernel,
            "remove_kernel": self._remove_kernel,
            "update_env": self._update_env,
        }
        for name, wrapper in wrappers.items():
            original = getattr(self._manager, name, None)
            if original is not None:
                self._original[name] = original
                setattr(self._manager, name, wrapper)

    def release(self) -> None:
        """Leave the manager as it was; tokens that were given stay good."""
        for name, original in self._original.items():
            setattr(self._manager, name, original)
        self._original.clear()
        for kernel_id in list(self._watched):
            self._unwatch(kernel_id)

    def tell(self, kernel_id: str) -> None:
        """Tell the listener what a kernel is doing now (it has just connected)."""
        watched = self._watched.get(kernel_id)
        if watched is not None:
            watched.told = ""  # so that it is said again
            self._settled(kernel_id)

    # --- the wrapped methods ----------------------------------------------------------------------------------------

    async def _start_kernel(self, *args: Any, kernel_id: str | None = None, **kwargs: Any) -> str:
        start = self._original["start_kernel"]
        if kernel_id is not None and (kernel_id in self._manager or kernel_id in self._starting):
            return str(await ensure_async(start(*args, kernel_id=kernel_id, **kwargs)))
        kernel_id = kernel_id or str(self._manager.new_kernel_id(**kwargs))
        env = {**(kwargs.pop("env", None) or os.environ)}
        for name in VARIABLES:  # of the server that this server was perhaps started in
            env.pop(name, None)
        reach = self._environment()
        if reach:
            env |= reach | {"EBUS_TOKEN": self._tokens.issue(kernel_id, _starter())}
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
        self._report(kernel_id, "restarting")
        try:
            answered = await ensure_async(self._original["restart_kernel"](kernel_id, *args, **kwargs))
        except BaseException:
            self._settled(kernel_id)
            raise
        if asyncio.isfuture(answered):
            answered.add_done_callback(lambda _: self._settled(kernel_id))
        else:
            self._settled(kernel_id)
        return answered

    def _remove_kernel(self, kernel_id: str, *args: Any, **kwargs: Any) -> Any:
        removed = self._original["remove_kernel"](kernel_id, *args, **kwargs)
        self._tokens.revoke(kernel_id)
        self._report(kernel_id, "dead")
        if self._unwatch(kernel_id):
            self._listener.kernel_stopped(kernel_id)
        return removed

    def _update_env(self, *, kernel_id: str, env: dict[str, str]) -> Any:
        """A session was renamed; jupyter_server sends the server's own environment along."""
        kept = {name: value for name, value in env.items() if name not in VARIABLES}
        return self._original["update_env"](kernel_id=kernel_id, env=kept)

    # --- activity ---------------------------------------------------------------------------------------------------

    def _watch(self, kernel_id: str) -> None:
        if kernel_id not in self._manager:  # it died while it started
            self._tokens.revoke(kernel_id)
            return
        manager = self._manager.get_kernel(kernel_id)
        self._watched[kernel_id] = _Watched(manager)
        if hasattr(manager, "has_trait") and manager.has_trait("execution_state"):
            manager.observe(lambda change: self._stirred(kernel_id), "execution_state")
        manager.add_restart_callback(lambda: self._report(kernel_id, "restarting"), "restart")

    def _unwatch(self, kernel_id: str) -> bool:
        watched = self._watched.pop(kernel_id, None)
        if watched is not None and watched.due is not None:
            watched.due.cancel()
        return watched is not None

    def _stirred(self, kernel_id: str) -> None:
        watched = self._watched.get(kernel_id)
        if watched is not None and watched.due is None:
            watched.due = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._settled, kernel_id)

    def _settled(self, kernel_id: str) -> None:
        watched = self._watched.get(kernel_id)
        if watched is None:
            return
        if watched.due is not None:
            watched.due.cancel()
            watched.due = None
        state = getattr(watched.manager, "execution_state", None) or ""
        watched.ran = watched.ran or state in ("busy", "idle")
        if watched.ran and state in _ACTIVITY:
            self._report(kernel_id, _ACTIVITY[state])

    def _report(self, kernel_id: str, activity: str) -> None:
        watched = self._watched.get(kernel_id)
        if watched is not None and watched.told != activity:
            watched.told = activity
            self._listener.kernel_activity(kernel_id, activity)


def _starter() -> User | None:
    """The user whose request is being answered; None outside of a request."""
    handler = CallContext.get(CallContext.JUPYTER_HANDLER)
    user: User | None = getattr(handler, "current_user", None)
    return user
