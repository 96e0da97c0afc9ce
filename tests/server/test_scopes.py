"""Scopes, with two users and three real kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .harness import Kernel, Server

OPEN = """
import ebus_jupyter as ebus
news = {scope: ebus.bus("news", str, scope=scope) for scope in ("kernel", "user", "server")}
received = {scope: bus.stream() for scope, bus in news.items()}
"""
WRITE = "for scope, bus in news.items(): bus.write(f'{who} in {scope}').result(10)"

# Each kernel reads the server's bus last: once its messages have arrived, all others have arrived too.
READ = """
last = received["server"].take(3, timeout=10)
def waiting(stream):
    while True:
        try: yield stream.get_nowait()
        except LookupError: return
{"kernel": list(waiting(received["kernel"])), "user": list(waiting(received["user"])), "server": last}
"""


@pytest.fixture(scope="module")
def kernels(server: Server) -> Iterator[dict[str, Kernel]]:
    kernels = {
        "alice's first": server.start_kernel("alice"),
        "alice's second": server.start_kernel("alice"),
        "bob's": server.start_kernel("bob"),
    }
    yield kernels
    for kernel in kernels.values():
        kernel.shutdown()


def run_everywhere(kernels: dict[str, Kernel], code: str) -> dict[str, str | None]:
    return {who: kernel.run(f"who = {who!r}\n" + code).value for who, kernel in kernels.items()}


def test_each_participant_receives_just_what_its_scope_allows(kernels: dict[str, Kernel]) -> None:
    run_everywhere(kernels, OPEN)
    run_everywhere(kernels, WRITE)
    received = {who: eval(str(value)) for who, value in run_everywhere(kernels, READ).items()}

    everyone = [f"{who} in server" for who in kernels]
    alices = ["alice's first in user", "alice's second in user"]
    assert received == {
        "alice's first": {"kernel": ["alice's first in kernel"], "user": alices, "server": everyone},
        "alice's second": {"kernel": ["alice's second in kernel"], "user": alices, "server": everyone},
        "bob's": {"kernel": ["bob's in kernel"], "user": ["bob's in user"], "server": everyone},
    }


def test_sender_is_stamped_by_the_server_not_by_the_kernel(kernels: dict[str, Kernel]) -> None:
    kernels["bob's"].run(
        "import os; os.environ['USER'] = os.environ['JUPYTERHUB_USER'] = 'alice'\n"
        "import ebus_jupyter as ebus; ebus.bus('signed').write('it is me, alice').result(10)"
    )
    sender = kernels["alice's first"].run(
        "import ebus_jupyter as ebus\n"
        "sender = ebus.bus('signed').messages(since='start').get(timeout=10).sender\n"
        "(sender.user, sender.kind, sender.kernel_id)"
    )
    assert eval(str(sender.value)) == ("bob", "kernel", kernels["bob's"].id)


@pytest.mark.parametrize(
    ("code", "error", "next_step"),
    [
        ("ebus.bus('x', scope='galaxy')", "UnknownScope", "choose one of"),
        ("ebus.bus('x', scope='hub')", "UnknownScope", "JupyterHub service"),
        ("ebus.bus('two words')", "InvalidName", "letters, digits"),
        ("ebus.bus('')", "InvalidName", "letters, digits"),
        ("ebus.bus('typed', int).write('tea')", "TypeMismatch", "expected int, got str at $"),
        ("ebus.bus('typed', str)", "SpecConflict", "choose another name"),
        ("ebus.bus('x', size=0)", "TooLarge", "size"),
    ],
)
def test_invalid_input_gets_a_named_error_with_the_next_step(
    kernels: dict[str, Kernel], code: str, error: str, next_step: str
) -> None:
    raised = kernels["bob's"].run(
        "import ebus_jupyter as ebus\nebus.bus('typed', int)\n"
        f"try: {code}\nexcept ebus.EbusError as error: raised = (type(error).__name__, str(error))\nraised"
    )
    name, text = eval(str(raised.value))
    assert name == error
    assert next_step in text
    # The server still works.
    assert kernels["bob's"].run("ebus.bus('typed', int).write(3).result(10) > 0").value == "True"


def test_kernel_scoped_bus_survives_restart_but_not_shutdown(server: Server) -> None:
    history = "import ebus_jupyter as ebus; ebus.bus('mine', scope='kernel').history()"
    kernel = server.start_kernel("alice")
    kernel.run("import ebus_jupyter as ebus; ebus.bus('mine', scope='kernel').write('kept').result(10)")
    kernel.restart()
    assert kernel.run(history).value == "['kept']"
    kernel.shutdown()
    other = server.start_kernel("alice")
    assert other.run(history).value == "[]"
    other.shutdown()
