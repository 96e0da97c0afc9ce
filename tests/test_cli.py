"""``jupyter ebus`` against a real server."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

import ebus_jupyter as ebus
from ebus_jupyter import cli, recording
from ebus_jupyter.backends.sqlite import SqliteBackend
from ebus_jupyter.client.client import Client
from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.limits import Limits

from .server.harness import Server
from .server.wire import Wire

RULES = """
from jupyter_server.auth.authorizer import Authorizer

class Rules(Authorizer):
    '''Bob does not administer buses.'''

    def is_authorized(self, handler, user, action, resource):
        return not (resource == "ebus" and action == "execute" and user.username == "bob")

c.ServerApp.authorizer_class = Rules
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("cli"), config=RULES) as running:
        yield running


@pytest.fixture
def name() -> str:
    return f"bus-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    client = ebus.connect(server.url, server.token("bob"))
    yield client
    client.close()


@pytest.fixture
def run(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., list[str]]:
    """Run a command as Alice, and return its lines of output."""
    monkeypatch.setenv("EBUS_URL", server.url)
    monkeypatch.setenv("EBUS_TOKEN", server.token("alice"))

    def run(*words: str, code: int = 0) -> list[str]:
        assert cli.main(words) == code
        said = capsysbinary.readouterr()
        return (said.err if code else said.out).decode().splitlines()

    return run


def test_write_and_tail_exchange_json(run: Callable[..., list[str]], name: str) -> None:
    assert run("write", name, '{"tea": 1}') == ["1"]
    assert run("write", name, "--text", "a cup") == ["2"]  # options stand anywhere
    found = [json.loads(line) for line in run("tail", name, "--no-follow")]
    assert [(line["offset"], line["value"], line["sender"]["user"]) for line in found] == [
        (1, {"tea": 1}, "alice"),
        (2, "a cup", "alice"),
    ]
    assert [json.loads(line)["offset"] for line in run("tail", name, "-n", "1", "--no-follow")] == [2]
    assert [json.loads(line)["offset"] for line in run("tail", name, "--since", "1", "--no-follow")] == [2]


def test_write_takes_each_line_of_stdin(
    run: Callable[..., list[str]], name: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("1\n\n[2]\n"))
    assert run("write", name) == ["1", "2"]
    assert client.bus(name).history() == [1, [2]]


def test_tail_follows_until_the_bus_ends(server: Server, name: str, client: Client) -> None:
    bus = client.bus(name)
    bus.write("before").result(10)
    command = [sys.executable, "-m", "jupyter", "ebus", "tail", name, "--url", server.url]
    tail = subprocess.Popen(
        [*command, "--token", server.token("alice")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert tail.stdout is not None
        assert json.loads(tail.stdout.readline())["value"] == "before"
        bus.write("live").result(10)
        assert json.loads(tail.stdout.readline())["value"] == "live"
        bus.delete()
        out, err = tail.communicate(timeout=20)
        assert (out, tail.returncode) == ("", 0)
        assert "bob has deleted" in err
    finally:
        tail.kill()
        tail.wait()


def test_ls_lists_buses_as_table_and_as_json(run: Callable[..., list[str]], name: str, client: Client) -> None:
    bus = client.bus(name, int, size=7)
    bus.write(1).result(10)
    assert [row.split() for row in run("ls") if name in row] == [["server", name, "int", "log", "7", "1", "1"]]
    [found] = [row for row in map(json.loads, run("ls", "--json")) if row["name"] == name]
    assert found["spec"]["schema"] == {"type": "integer"}
    bus.close()


def test_rm_deletes_for_everyone(run: Callable[..., list[str]], name: str, client: Client) -> None:
    heard = client.bus(name).stream()
    run("rm", name)
    with pytest.raises(ebus.Closed, match="alice has deleted"):
        heard.get(10)


def test_types_prints_typescript(run: Callable[..., list[str]], name: str, client: Client) -> None:
    client.bus(name, dict[str, int])
    [line] = run("types", name)
    assert line.startswith("export type ")
    assert line.endswith(" = Record<string, number>;")


def test_record_and_replay_a_bus(run: Callable[..., list[str]], name: str, client: Client, tmp_path: Path) -> None:
    file = str(tmp_path / "session.jsonl")
    bus = client.bus(name, int)
    recorder = threading.Thread(target=cli.main, args=(["record", name, file, "-n", "2", "--since", "start"],))
    bus.write(1).result(10)
    recorder.start()
    bus.write(2).result(10)
    recorder.join(20)
    run("replay", file, f"{name}-again")
    again = client.bus(f"{name}-again")
    assert (again.history(), again.spec.schema) == ([1, 2], {"type": "integer"})
    run("replay", file)
    assert bus.history() == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tail", "nowhere"], "no bus 'nowhere'"),
        (["types", "nowhere"], "no bus 'nowhere'"),
        (["write", "two words", "1"], "letters, digits"),
        (["write", "x", "{tea}"], "not JSON"),
        (["write", "x", "--scope", "kernel", "1"], "open the bus in the kernel"),
        (["replay", "nowhere.jsonl"], "nowhere.jsonl"),
        (["ls", "--token", "wrong"], "does not know you"),
    ],
)
def test_error_is_one_line_and_exit_code_2(run: Callable[..., list[str]], words: list[str], said: str) -> None:
    [line] = run(*words, code=2)
    assert line.startswith("jupyter ebus: ")
    assert said in line


def test_unreachable_server_is_reported(run: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "CONNECT_SECONDS", 0.2)
    [line] = run("ls", "--url", "http://127.0.0.1:9/", code=2)
    assert "Is the Jupyter server running?" in line


def test_no_server_is_picked_implicitly(run: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EBUS_URL")
    [line] = run("ls", code=2)
    assert "name a server" in line


def test_refused_write_is_an_error(run: Callable[..., list[str]], name: str, client: Client) -> None:
    client.bus(name, int)
    [line] = run("write", name, '"tea"', code=2)
    assert "at $" in line


# --- administration ---------------------------------------------------------------------------------------------------


def test_kick_ends_all_connections_of_a_user(run: Callable[..., list[str]], name: str, client: Client) -> None:
    stream = client.bus(name).stream()
    assert int(run("kick", "bob")[0]) >= 1
    with pytest.raises(ebus.EbusError, match="alice has ended the connection"):
        stream.get(10)
    assert client.status == "closed"
    [line] = run("kick", "nobody", code=2)
    assert "no user 'nobody' is connected" in line


def test_kick_by_id_ends_one_connection(run: Callable[..., list[str]], server: Server, client: Client) -> None:
    with ebus.connect(server.url, server.token("bob")) as other:
        other.wait_live(10)
        client.wait_live(10)
        assert client.you is not None
        assert run("kick", client.you.id) == ["1"]
        assert other.status == "live"


def test_backup_is_a_file_that_a_server_can_use(
    run: Callable[..., list[str]], name: str, client: Client, tmp_path: Path
) -> None:
    client.bus(name, int).write(7).result(10)
    file = tmp_path / "copy.sqlite"
    run("backup", str(file))
    assert file.stat().st_mode & 0o077 == 0
    client.bus(name, int).write(8).result(10)
    kept = asyncio.run(kept_values(file, f"ebus:server/{name}"))
    assert kept == [7]
    [line] = run("backup", str(file), code=2)
    assert "exists" in line


async def kept_values(file: Path, bus: str) -> list[int]:
    backend = SqliteBackend(file)
    found = await backend.open(bus, None, "")
    await backend.aclose()
    assert found is not None
    return [msgspec.msgpack.decode(entry.value) for entry in found.entries]


def test_diff_of_backups_names_the_buses_that_changed(
    run: Callable[..., list[str]], name: str, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = str(tmp_path / "a.sqlite"), str(tmp_path / "b.sqlite")
    grew, went, renewed = (client.bus(f"{name}-{what}", int) for what in ("grew", "went", "renewed"))
    for bus in (grew, went, renewed):
        bus.write(1).result(10)
    run("backup", a)
    grew.write(2).result(10)
    for bus in (went, renewed):
        bus.delete()
    for what in ("came", "renewed"):
        client.bus(f"{name}-{what}", int).write(1).result(10)
    at = f"ebus:server/{name}"
    changes = [f"+ {at}-came 1", f"~ {at}-grew 1 2", f"! {at}-renewed 1 1 (another history)", f"- {at}-went 1"]
    assert [line for line in run("diff", a) if name in line] == changes
    run("backup", b)
    monkeypatch.delenv("EBUS_URL")  # two files need no server
    assert [line for line in run("diff", a, b) if name in line] == changes
    assert run("diff", b, b) == []


def test_compact_returns_the_space_of_deleted_buses(run: Callable[..., list[str]], name: str, client: Client) -> None:
    bus = client.bus(name)
    for _ in range(5):
        bus.write("x" * 200_000).result(10)
    run("rm", name)
    assert int(run("compact")[0]) >= 900_000
    assert run("compact") == ["0"]


@pytest.mark.parametrize("words", [["kick", "alice"], ["backup", "FILE"], ["compact"]])
def test_administration_needs_the_right_to_execute(
    run: Callable[..., list[str]], server: Server, words: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "copy.sqlite"
    words = [str(file) if word == "FILE" else word for word in words]
    [line] = run(*words, "--token", server.token("bob"), code=2)
    assert "refused" in line
    assert not file.exists()


def test_command_is_registered_with_jupyter() -> None:
    said = subprocess.run([sys.executable, "-m", "jupyter", "ebus", "--version"], capture_output=True, text=True)
    assert said.stdout.strip() == ebus.__version__


# --- faster than the server's rate ------------------------------------------------------------------------------------


def recorded(file: Path, name: str, count: int) -> None:
    """Make a recording of the numbers from 0, written all at once."""
    sender = {"id": "ab", "kind": "client", "user": "bob", "name": "Bob", "kernel_id": ""}
    spec = {"size": count}
    header = {"ebus": recording.FORMAT, "bus": f"ebus:server/{name}", "scope": "server", "name": name, "spec": spec}
    with file.open("w") as out:
        print(json.dumps(header), file=out)
        for n in range(count):
            line = {"at": 0.0, "offset": n + 1, "id": f"ab-{n + 1}", "time": 0.0, "sender": sender, "value": n}
            print(json.dumps(line), file=out)


BURST = int(Limits().publish_rate * Limits().publish_burst)


def test_replay_beyond_the_server_s_rate_is_whole_and_in_order(
    run: Callable[..., list[str]], name: str, client: Client, tmp_path: Path
) -> None:
    recorded(tmp_path / "x.jsonl", name, BURST + 500)
    run("replay", str(tmp_path / "x.jsonl"))
    assert client.bus(name).history(2 * BURST) == list(range(BURST + 500))


def test_lines_beyond_the_server_s_rate_are_written_in_order(
    run: Callable[..., list[str]], name: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = BURST + 200
    _bus = client.bus(name, size=2 * BURST)
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{n}\n" for n in range(count))))
    assert run("write", name) == [str(n + 1) for n in range(count)]
    assert client.bus(name).history(2 * BURST) == list(range(count))


def test_write_that_does_not_wait_is_refused_beyond_the_rate(client: Client, name: str) -> None:
    bus = client.bus(name, size=20 * BURST)
    acks = []
    with pytest.raises(ebus.RateLimited, match="wait=False") as refused:
        for n in range(20 * BURST):
            acks.append(bus.write(n, wait=False))
    assert refused.value.retry_after > 0
    assert client.flush(10) == 0
    kept = [ack for ack in acks if ack.error is None]
    assert len(kept) > BURST // 2
    assert all(isinstance(ack.error, ebus.RateLimited) for ack in acks if ack.error is not None)
    assert len(bus.history(20 * BURST)) == len(kept)
    assert bus.write("later").result(10) > len(kept), "one that waits is accepted"


def test_escape_sequences_of_others_reach_no_terminal(run: Callable[..., list[str]], server: Server, name: str) -> None:
    attack = "\x1b]0;title\x07\x1b[2J\u202e\nserver  fake"
    with Wire(server, auth=f"token {server.token('bob')}") as wire:
        wire.hello()
        wire.send(frames.Open(1, "server", name, {"type": attack, "schema": {"enum": [attack, {attack: 1}]}}))
        opened = wire.expect(frames.Opened)
        wire.publish(opened, 1, attack)
        wire.expect(frames.Ok)
    said = [
        *run("ls"),
        *run("tail", name, "-n", "1", "--no-follow"),
        *run("types", name),
        *run("write", name, "1", code=2),
    ]
    assert not any(char in "".join(said) for char in "\x1b\x07\u202e")
    assert not any(line.startswith("server  fake") for line in said)
