"""Real kernels: their tokens, users, activity and scope."""

from __future__ import annotations

import uuid

import pytest

from ebus_jupyter.core.protocol import frames

from .harness import Kernel, Server
from .wire import Refused, Wire

ENVIRONMENT = "import os; print(*(os.environ.get('EBUS_' + name, '-') for name in ('URL', 'TOKEN', 'CERT')))"


def environment(kernel: Kernel) -> list[str]:
    return kernel.run(ENVIRONMENT).stdout.split()


def token(kernel: Kernel) -> str:
    return environment(kernel)[1]


@pytest.mark.parametrize("notebook", [None, "work.ipynb"], ids=["alone", "for a notebook"])
def test_kernel_connects_to_its_server_as_the_user_who_started_it(server: Server, notebook: str | None) -> None:
    kernel = server.start_kernel("bob", notebook)
    url, secret, certificate = environment(kernel)
    assert (url, certificate) == (server.url, "-")
    with Wire(server, auth=f"ebus {secret}") as wire:
        you = wire.hello().you
    assert (you.kind, you.user, you.name, you.kernel_id) == ("kernel", "bob", "Bob", kernel.id)
    kernel.shutdown()


def test_token_survives_restarts_and_crashes_but_not_shutdown(server: Server) -> None:
    kernel = server.start_kernel("alice")
    secret = token(kernel)
    with as_kernel(server, secret) as wire:
        wire.hello()
        kernel.restart()
        assert token(kernel) == secret
        with Wire(server, auth=f"token {server.token('alice')}") as onlooker:
            onlooker.hello()
            bus = onlooker.open("crash")
            onlooker.watch(bus)
            wire.open("crash")
            # Killed only now: the server may notice it, and restart the kernel, within milliseconds.
            kernel.submit("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
            while onlooker.next_presence()[2] != "restarting":
                pass
        kernel.close()
        assert token(kernel) == secret
        kernel.shutdown()
        bye = wire.expect_end()
        assert bye.code == "unauthenticated" and not bye.reconnect
    with pytest.raises(Refused, match="shut down"):
        as_kernel(server, secret)


def test_kernel_activity_is_shown_in_presence(server: Server) -> None:
    kernel = server.start_kernel("alice")
    with Wire(server, auth=f"token {server.token('bob')}") as bob, as_kernel(server, token(kernel)) as wire:
        bob.hello(), wire.hello()
        bus = bob.open("lab")
        bob.watch(bus)
        wire.open("lab")

        def activity() -> str:
            while True:
                who, _, current = bob.next_presence()
                if who.kernel_id == kernel.id:
                    return current

        assert activity() == "idle"
        cell = kernel.submit("input_ = __import__('time').sleep(30)")
        assert activity() == "busy"
        kernel.interrupt()
        with pytest.raises(Exception, match="KeyboardInterrupt"):
            cell.result()
        assert activity() == "idle"
        kernel.restart()
        assert [activity(), activity()] == ["restarting", "idle"]
        kernel.shutdown()
        assert activity() in ("dead", "idle")


def test_kernel_scope_is_reclaimed_at_shutdown(server: Server) -> None:
    kernel = server.start_kernel("alice")
    with as_kernel(server, token(kernel)) as wire:
        wire.hello()
        mine = wire.open("mine", "kernel")
        wire.publish(mine, 1, "secret")
        wire.expect(frames.Ok)
        with Wire(server, auth=f"token {server.token('alice')}") as page:
            page.hello()
            page.send(frames.Open(1, "kernel", "mine", owner=kernel.id, cap=mine.cap))
            page.expect(frames.Opened)
            kernel.shutdown()
            assert "shut down" in page.expect(frames.Gone).reason


def test_renamed_session_keeps_the_kernels_environment(server: Server) -> None:
    kernel = server.start_kernel("alice", "before.ipynb")
    before = environment(kernel)
    sessions = server.request("GET", "api/sessions", "alice").good().json()
    session = next(found["id"] for found in sessions if found["kernel"]["id"] == kernel.id)
    server.request("PATCH", f"api/sessions/{session}", "alice", body={"path": "after.ipynb"}).good()
    kernel.restart()
    assert environment(kernel) == before
    kernel.shutdown()


def test_requesting_a_running_kernel_does_not_change_its_user(server: Server) -> None:
    chosen = str(uuid.uuid4())
    kernel = server.start_kernel("alice", kernel_id=chosen)
    assert kernel.id == chosen
    secret = token(kernel)
    again = server.request("POST", "api/kernels", "bob", body={"kernel_id": chosen}).good().json()
    assert again["id"] == chosen
    with as_kernel(server, secret) as wire:
        you = wire.hello().you
        assert (you.user, you.kernel_id) == ("alice", chosen)
    kernel.shutdown()


def test_kernel_has_the_permissions_of_its_user(server: Server) -> None:
    kernel = server.start_kernel("carol")
    with as_kernel(server, token(kernel)) as wire, Wire(server, auth=f"token {server.token('alice')}") as alice:
        wire.hello(), alice.hello()
        alice.open("lecture")
        wire.publish(wire.open("lecture"), 1, "me too")
        refused = wire.read()
        assert isinstance(refused, frames.Error) and refused.code == "forbidden"
    kernel.shutdown()


def test_tokens_issued_before_a_server_crash_are_refused_with_a_hint(server: Server) -> None:
    kernel = server.start_kernel("alice")
    secret = token(kernel)
    kernel.close()
    port = server.port
    server.kill9()
    server.start()
    assert server.port == port
    with pytest.raises(Refused, match="restarted"):
        as_kernel(server, secret)


def as_kernel(server: Server, secret: str) -> Wire:
    return Wire(server, auth=f"ebus {secret}")
