"""A process with a client: it ends, it is forked, its broker is away. Nothing is lost without a word, and nothing hangs."""

from __future__ import annotations

import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebus_jupyter.client import driver
from ebus_jupyter.client.discover import remote_client
from tests.client.test_interrupted import check_interrupted_writes

from .test_killed_server import ROOT, Server, server

__all__ = ["server"]  # a fixture

WRITER = """
import ebus_jupyter as ebus
client = ebus.connect({url!r}, "of-ann")
bus = client.bus("exit", size=1000)
"""


def run(code: str, server: Server, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Run a script against the server, to its end."""
    text = WRITER.format(url=server.url) + code
    return subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )


def kept(server: Server) -> list[object]:
    with remote_client(server.url, "of-ann") as client:
        return client.bus("exit").history(1000)


def test_writes_of_a_script_that_ends_arrive(server: Server) -> None:
    ended = run("for n in range(200): bus.write(n)", server)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    assert kept(server) == list(range(200))


def test_writes_that_wait_in_a_batch_arrive_when_the_client_closes(server: Server) -> None:
    ended = run(
        "bus = client.bus('exit', flush_size=1000, flush_interval=60)\n"
        "for n in range(200): bus.write(n)\n"
        "client.close()\n"
        "print(client.status)",
        server,
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "closed\n")
    assert kept(server) == list(range(200))


def test_process_that_ends_offline_says_how_many_writes_had_no_answer(server: Server) -> None:
    ended = run(
        "import logging, sys\n"
        "print('ready', flush=True)\n"
        f"import os, signal; os.kill({server.pid}, signal.SIGKILL)\n"
        "for n in range(3): bus.write(n)",
        server,
    )
    assert ended.returncode == 0
    assert "3 writes" in ended.stderr
    assert "had no answer" in ended.stderr


FORK = """
import os, time
ack = bus.write("before")
ack.result(5)
stream = bus.stream()
read, write = os.pipe()
pid = os.fork()
if pid == 0:
    said = []
    for use in (lambda: bus.write("child"), lambda: stream.get(timeout=1), lambda: bus.history(1), client.buses,
                lambda: client.bus("other")):
        try:
            use()
            said.append("worked")
        except ebus.Closed as error:
            said.append(error.reason)
    fresh = ebus.connect({url!r}, "of-ann")
    fresh.bus("exit").write("fresh child").result(5)
    fresh.close()
    os.write(write, repr(said).encode())
    os._exit(0)
os.close(write)
os.waitpid(pid, 0)
print(os.read(read, 1000).decode())
bus.write("after").result(5)
print(stream.take(2, timeout=5), client.status)
"""


def test_forked_child_gets_a_clear_error_and_the_parent_goes_on(server: Server) -> None:
    ended = run(FORK.replace("{url!r}", repr(server.url)), server)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    child, parent = ended.stdout.splitlines()
    assert child == repr(["forked"] * 5)
    assert parent == "['fresh child', 'after'] live"


def test_child_of_multiprocessing_fork_ends_by_itself(server: Server, tmp_path: Path) -> None:
    ended = run(
        "import multiprocessing\n"
        "bus.write('parent').result(5)\n"
        "def work(): return None\n"
        "process = multiprocessing.get_context('fork').Process(target=work)\n"
        "process.start(); process.join(10)\n"
        "print(process.exitcode)\n"
        "bus.write('parent again').result(5)",
        server,
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "0\n")
    assert kept(server) == ["parent", "parent again"]


def test_interrupted_write_over_a_socket_harms_no_other_write(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "RETRY_SECONDS", (0.0, 0.0))
    with remote_client(server.url, "of-ann") as client:
        check_interrupted_writes(client, flush_size=1)


def test_call_of_a_signal_handler_in_the_middle_of_a_write_is_safe(server: Server) -> None:
    ended = run(
        "from tests.client.test_interrupting import check_visited_by_close, check_visited_writes\n"
        f"check_visited_by_close(lambda: ebus.connect({server.url!r}, 'of-ann'))\n"
        "check_visited_writes(client)",
        server,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr


def test_writes_of_a_multiprocessing_child_arrive(server: Server, tmp_path: Path) -> None:
    ended = run(
        "import multiprocessing\n"
        "def work():\n"
        f"    child = ebus.connect({server.url!r}, 'of-ann').bus('exit', flush_size=1000, flush_interval=60)\n"
        "    for n in range(200): child.write(n)\n"
        "process = multiprocessing.get_context('fork').Process(target=work)\n"
        "process.start(); process.join(10)\n"
        "print(process.exitcode)",
        server,
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "0\n")
    assert kept(server) == list(range(200))


def test_writes_through_a_filter_of_the_script_itself_arrive(server: Server) -> None:
    ended = run(
        "def double(value, sender): return 2 * value\n"
        "own = client.bus('own', int, size=1000, filter=double)\n"
        "for n in range(200): own.write(n)",
        server,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    with remote_client(server.url, "of-ann") as client:
        assert client.bus("own").history(1000) == [2 * n for n in range(200)]


def test_forked_child_keeps_none_of_the_sockets(server: Server) -> None:
    ended = run(
        "import os\n"
        "bus.write(1).result(5)\n"
        "held = client.connection._driver._line._socket.fileno()\n"
        "def is_open():\n"
        "    try: os.fstat(held)\n"
        "    except OSError: return 'closed'\n"
        "    return 'open'\n"
        "if os.fork() == 0:\n"
        "    print('child', is_open(), flush=True); bus.connection.wake_sender(); os._exit(0)\n"
        "os.wait(); print('parent', is_open()); bus.write(2).result(5); print(client.status)",
        server,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    assert ended.stdout.split() == ["child", "closed", "parent", "open", "live"]


ENDING = """
import os, sys
acks = [bus.write(n) for n in range({before})]
if {fork}:
    read, write = os.pipe()
    if os.fork() == 0:
        said = set()
        for ack in acks:
            try:
                ack.result(5)
                said.add("answered")
            except ebus.Closed as error:
                said.add(error.reason)
        os.write(write, repr(sorted(said)).encode())
        os._exit(0)
    os.close(write)
    os.wait()
    print(os.read(read, 1000).decode())
for n in range({before}, {before} + {after}):
    acks.append(bus.write(n))
{end}
"""


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.integers(0, 300),
    after=st.integers(0, 300),
    fork=st.booleans(),
    end=st.sampled_from(["", "sys.exit(0)", "client.close()", "del bus, client", "raise SystemExit"]),
)
def test_accepted_writes_survive_a_fork_and_the_end_at_any_point(
    server: Server, before: int, after: int, fork: bool, end: str
) -> None:
    with remote_client(server.url, "of-ann") as client:
        known = len(client.bus("exit", size=1000).history(1000))
    ended = run(ENDING.format(before=before, after=after, fork=fork, end=end), server)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    if fork:
        # An ack that had its answer keeps it; any other has one in the child, too.
        assert set(literal_eval(ended.stdout)) <= {"answered", "forked"}
    values = kept(server)
    assert values[-(before + after) :] == list(range(before + after)) or before + after == 0
    assert len(values) == min(1000, known + before + after)


def test_write_without_an_answer_has_one_in_a_forked_child(server: Server) -> None:
    ended = run(
        "import os, signal, sys\n"
        f"os.kill({server.pid}, signal.SIGKILL)\n"
        "ack = bus.write(1)\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        ack.result()\n"
        "    except ebus.Closed as error:\n"
        "        os._exit(7 if error.reason == 'forked' else 8)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)\n"
        "os._exit(0)",
        server,
        timeout=15,
    )
    assert ended.stdout == "7\n"
