"""Magics, in an IPython shell without a server, and in a real kernel."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

import ebus_jupyter as ebus

from .server.harness import Kernel, Server


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> InteractiveShell:
    for name in ("EBUS_URL", "EBUS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "ebus_jupyter")
    return shell


@pytest.fixture
def name() -> str:
    return f"bus-{uuid.uuid4().hex[:8]}"


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_load_ext_puts_ebus_into_the_namespace(shell: InteractiveShell) -> None:
    assert shell.user_ns["ebus"] is ebus


def test_load_ext_does_not_import_the_client() -> None:
    code = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell; shell = InteractiveShell()\n"
        "before = set(sys.modules); shell.run_line_magic('load_ext', 'ebus_jupyter')\n"
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('IPython.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "ebus_jupyter",
        *(f"ebus_jupyter.{name}" for name in ("errors", "magics", "terminal")),
    ]


def test_status_without_a_server_says_nothing_leaves(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_line_magic("ebus", "")
    assert "nothing leaves it" in said(capsys)


def test_write_and_tail_show_json_messages(
    shell: InteractiveShell, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell(f'%ebus write {name} {{"n": 1}}')
    shell.run_cell(f"%ebus write {name} [1, 2]")
    assert said(capsys) == "1\n2\n"
    shell.run_line_magic("ebus", f"tail {name} -n 1")
    assert said(capsys).split(maxsplit=1)[0] == "2"
    shell.run_line_magic("ebus", f"tail {name}")
    assert [line.partition(": ")[2] for line in said(capsys).splitlines()] == ["{'n': 1}", "[1, 2]"]


def test_ls_lists_the_buses_within_reach(
    shell: InteractiveShell, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = ebus.bus(name, int, size=7)
    shell.run_line_magic("ebus", "ls")
    [row] = [line.split() for line in said(capsys).splitlines() if name in line]
    assert row == ["server", name, "int", "log", "7", "1", "0"]
    bus.close()


def test_variable_that_holds_a_bus_names_it(
    shell: InteractiveShell, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.user_ns["votes"] = bus = ebus.bus(name, scope="user")
    shell.run_line_magic("ebus", 'write votes "tea"')
    assert bus.history() == ["tea"]
    shell.run_line_magic("ebus", f'write {name} --scope user "milk"')
    assert bus.history() == ["tea", "milk"]


@pytest.mark.parametrize(
    ("line", "next_step"),
    [
        ("list", "%ebus ls"),
        ("tail", "use %ebus tail BUS"),
        ("tail x -n many", "use %ebus tail BUS"),
        ("tail no-such-bus", "NoSuchBus"),
        ("write x", "use %ebus write BUS"),
        ("write x tea", "not JSON"),
        ("write two*words 1", "InvalidName"),
        ("off", "use %ebus off BUS"),
    ],
)
def test_wrong_usage_shows_the_right_one(shell: InteractiveShell, line: str, next_step: str) -> None:
    with pytest.raises(UsageError, match=next_step):
        shell.run_line_magic("ebus", line)


# --- in a kernel ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kernel, Kernel]]:
    with Server(tmp_path_factory.mktemp("magics")) as server:
        listens, writes = server.start_kernel("alice"), server.start_kernel("bob")
        listens.run("%load_ext ebus_jupyter")
        writes.run("import ebus_jupyter as ebus")
        yield listens, writes


# Callbacks run between cells: a cell that awaits lets them.
UNTIL = """
import asyncio
async def until(true):
    for _ in range(500):
        if true(): return
        await asyncio.sleep(0.01)
    raise TimeoutError
await until(lambda: {condition})
{result}
"""


def value_when(kernel: Kernel, condition: str, result: str) -> Any:
    return eval(str(kernel.run(UNTIL.format(condition=condition, result=result)).value))


def write(kernel: Kernel, name: str, *values: Any) -> None:
    kernel.run(f"for value in {values!r}: ebus.bus({name!r}).write(value).result(10)")


def test_on_cell_runs_for_each_value_with_its_sender(kernels: tuple[Kernel, Kernel]) -> None:
    listens, writes = kernels
    listens.run("heard = []")
    listens.run("%%on votes\nheard.append((value, message.sender.user))")
    write(writes, "votes", "tea", "milk")
    assert value_when(listens, "len(heard) == 2", "heard") == [("tea", "bob"), ("milk", "bob")]


def test_rerun_on_cell_replaces_the_old_one(kernels: tuple[Kernel, Kernel]) -> None:
    listens, writes = kernels
    listens.run("count = 0; log = []")
    listens.run("%%on news\nlog.append('old')")
    listens.run("%%on news\ncount += value; log.append('new')")
    write(writes, "news", 2, 3)
    assert value_when(listens, "count == 5", "log") == ["new", "new"]


def test_on_cell_may_await_while_values_wait(kernels: tuple[Kernel, Kernel]) -> None:
    listens, writes = kernels
    listens.run("import asyncio; steps = []")
    listens.run("%%on slow\nsteps.append(f'{value} in')\nawait asyncio.sleep(0.02)\nsteps.append(f'{value} out')")
    write(writes, "slow", 1, 2)
    assert value_when(listens, "len(steps) == 4", "steps") == ["1 in", "1 out", "2 in", "2 out"]


def test_failing_on_cell_shows_its_error_and_continues(kernels: tuple[Kernel, Kernel]) -> None:
    listens, writes = kernels
    listens.run("inverse = []")
    cell = listens.submit("%%on numbers\nprint('got', value)\ninverse.append(1 / value)")
    cell.result()
    write(writes, "numbers", 0, 4)
    assert value_when(listens, "inverse", "inverse") == [0.25]
    assert cell.so_far.stdout == "got 0\ngot 4\n", "its output shows below its own cell"
    assert cell.so_far.error.startswith("ZeroDivisionError")


def test_off_stops_the_on_cell(kernels: tuple[Kernel, Kernel]) -> None:
    listens, writes = kernels
    listens.run("told = []; marks = []\nmark = ebus.bus('mark')\nmark.on(marks.append)")
    listens.run("%%on gossip\ntold.append(value)")
    listens.run("%ebus off gossip")
    write(writes, "gossip", "psst")
    write(writes, "mark", "done")
    assert value_when(listens, "marks", "told") == []
    assert "no %%on cell is running" in listens.run("%ebus off gossip").stdout


def test_invalid_on_cell_leaves_the_old_one_running(kernels: tuple[Kernel, Kernel]) -> None:
    listens, writes = kernels
    listens.run("kept = []")
    listens.run("%%on drafts\nkept.append(value)")
    with pytest.raises(Exception, match="SyntaxError"):
        listens.run("%%on drafts\nkept.append(value")
    write(writes, "drafts", 1)
    assert value_when(listens, "kept", "kept") == [1]
