"""Scopes kept apart, with two people and three real kernels: each participant receives just what its scope allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.harness import Kernel, Server

OPEN = """
import ebus_jupyter as ebus
news = {scope: ebus.bus("news", str, scope=scope) for scope in ("kernel", "user", "server")}
heard = {scope: bus.stream() for scope, bus in news.items()}
"""
WRITE = "for scope, bus in news.items(): bus.write(f'{who} in {scope}').result(10)"

# Every participant hears the server's bus last: when it is there, whatever else was to come has come.
HEAR = """
last = heard["server"].take(3, timeout=10)
def waiting(stream):
    while True:
        try: yield stream.get_nowait()
        except LookupError: return
{"kernel": list(waiting(heard["kernel"])), "user": list(waiting(heard["user"])), "server": last}
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Kernel]]:
    with Server(tmp_path_factory.mktemp("scopes"), users=("alice", "bob")) as server:
        yield {
            "alice's first": server.start_kernel("alice"),
            "alice's second": server.start_kernel("alice"),
            "bob's": server.start_kernel("bob"),
        }


def run_everywhere(kernels: dict[str, Kernel], code: str) -> dict[str, str | None]:
    return {who: kernel.run(f"who = {who!r}\n" + code).value for who, kernel in kernels.items()}


def test_each_participant_receives_just_what_its_scope_allows(kernels: dict[str, Kernel]) -> None:
    run_everywhere(kernels, OPEN)
    run_everywhere(kernels, WRITE)
    heard = {who: eval(str(said)) for who, said in run_everywhere(kernels, HEAR).items()}

    everyone = [f"{who} in server" for who in kernels]
    alices = ["alice's first in user", "alice's second in user"]
    assert heard == {
        "alice's first": {"kernel": ["alice's first in kernel"], "user": alices, "server": everyone},
        "alice's second": {"kernel": ["alice's second in kernel"], "user": alices, "server": everyone},
        "bob's": {"kernel": ["bob's in kernel"], "user": ["bob's in user"], "server": everyone},
    }


def test_the_sender_is_what_the_server_knows_not_what_the_kernel_says(kernels: dict[str, Kernel]) -> None:
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
def test_bad_input_gets_a_named_error_that_says_what_to_do(
    kernels: dict[str, Kernel], code: str, error: str, next_step: str
) -> None:
    said = kernels["bob's"].run(
        "import ebus_jupyter as ebus\nebus.bus('typed', int)\n"
        f"try: {code}\nexcept ebus.EbusError as wrong: said = (type(wrong).__name__, str(wrong))\nsaid"
    )
    name, text = eval(str(said.value))
    assert name == error
    assert next_step in text
    # … and the server goes on
    assert kernels["bob's"].run("ebus.bus('typed', int).write(3).result(10) > 0").value == "True"


def test_a_kernel_s_bus_survives_its_restart_and_goes_with_its_shutdown(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        kernel = server.start_kernel("alice")
        kernel.run("import ebus_jupyter as ebus; ebus.bus('mine', scope='kernel').write('kept').result(10)")
        kernel.restart()
        assert kernel.run("import ebus_jupyter as ebus; ebus.bus('mine', scope='kernel').history()").value == "['kept']"
        kernel.shutdown()
        assert (
            server.start_kernel("alice")
            .run("import ebus_jupyter as ebus; ebus.bus('mine', scope='kernel').history()")
            .value
            == "[]"
        )
