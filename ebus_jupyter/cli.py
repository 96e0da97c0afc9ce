"""``jupyter ebus``: look at the buses of a Jupyter server, and take part in them, from a terminal.

It connects to the server that ``--url`` and ``--token`` name, or else ``EBUS_URL`` and ``EBUS_TOKEN``; never to one that
it finds running, which may be another user's. Messages are JSON lines, as in `core.protocol.json_value`. An error is one
line on stderr, and the exit code 2. What others have written is made `printable` before a terminal sees it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

import ebus_jupyter

from . import recording
from .backends.sqlite_heads import heads
from .client.ack import Ack
from .client.bus import Bus
from .client.bus_table import table
from .client.client import Client
from .client.discover import remote_client
from .core.client.reader import Since
from .core.protocol import json_value
from .errors import Closed, EbusError, Lagged
from .terminal import printable, printable_json, printable_lines
from .transports.websocket import tls_context

CONNECT_SECONDS = 5.0
"""The time that a command waits for the server to answer."""


class _UsageError(Exception):
    """The command makes no sense as it stands; the message says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its words. Default: those of the process.

    Returns:
        The exit code: 0; 2 for an error, which is told on stderr; 130 if interrupted.
    """
    options = _options(sys.argv[1:] if argv is None else argv)
    try:
        if getattr(options, "other", None):
            _diff_files(options.file, options.other)
            return 0
        client = _connect(options)
        try:
            options.run(client, options)
            sys.stdout.flush()
        finally:
            client.close()
    except BrokenPipeError:  # the reader of the output has gone, as `head` does
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    except (EbusError, _UsageError, OSError, TimeoutError, ValueError) as error:
        _tell(" ".join(str(error).split()))
        return 2
    return 0


def _connect(options: argparse.Namespace) -> Client:
    url = options.url or os.environ.get("EBUS_URL", "")
    if not url:
        raise _UsageError(
            "name a server: --url http://HOST:PORT/ and --token TOKEN, or EBUS_URL and EBUS_TOKEN (`jupyter server list` "
            "shows both)."
        )
    token = options.token or os.environ.get("EBUS_TOKEN", "")
    client = remote_client(url, token, certificate=os.environ.get("EBUS_CERT", ""))
    try:
        client.wait_live(CONNECT_SECONDS)
    except TimeoutError:
        why = client.why
        client.close()
        raise _UsageError(f"{client.where} does not answer{f': {why}' if why is not None else '.'}") from None
    return client


# --- commands ---------------------------------------------------------------------------------------------------------


def _ls(client: Client, options: argparse.Namespace) -> None:
    found = client.buses()
    if options.json:
        for bus in found:
            _print(bus)
    else:
        print(table(found))


def _tail(client: Client, options: argparse.Namespace) -> None:
    bus = _open(client, options)
    where: Since = options.since if options.since is not None else -options.n or None
    stream = bus.deliveries(where)
    while True:
        try:
            delivery = stream.get() if options.follow else stream.get_kept()
            _print(json_value.message(delivery, bus.filtered_by))
        except Lagged as lag:
            _tell(str(lag))
        except LookupError:
            return
        except Closed as closed:
            _tell(str(closed))
            return


def _write(client: Client, options: argparse.Namespace) -> None:
    read: Callable[[str], Any] = (lambda text: text.rstrip("\n")) if options.text else _json
    given = options.value not in (None, "-")
    values = iter([read(options.value)]) if given else (read(line) for line in sys.stdin if line.strip())
    bus = _open(client, options, create=True)
    acks: deque[Ack] = deque()
    for value in values:
        decoded = bus.codec.decode(json_value.from_json(value))
        acks.append(bus.write(decoded, key=options.key, to=options.to, expect=options.expect))
        while acks and acks[0].done:
            print(acks.popleft().result(), flush=True)
    for ack in acks:
        print(ack.result())


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError as error:
        raise _UsageError(
            f"{text.strip()[:40]!r} is not JSON ({error}); quote it, or write text with --text."
        ) from None


def _rm(client: Client, options: argparse.Namespace) -> None:
    for name in options.names:
        options.name = name
        _open(client, options).delete()


def _types(client: Client, options: argparse.Namespace) -> None:
    print(printable_lines(_open(client, options).typescript))


def _record(client: Client, options: argparse.Namespace) -> None:
    bus = _open(client, options)
    count = recording.record(bus, options.file, seconds=options.seconds, n=options.n, since=options.since)
    print(printable(f"{count} messages of {bus.name} are in {options.file}."), file=sys.stderr)


def _replay(client: Client, options: argparse.Namespace) -> None:
    bus = recording.bus_for(client, options.file, options.name, scope=options.scope)
    count = recording.replay(bus, options.file, speed=options.speed)
    print(printable(f"{count} messages were written to {bus.name}."), file=sys.stderr)


def _kick(client: Client, options: argparse.Namespace) -> None:
    answer = msgspec.json.decode(_administer(client, options, "kick", {"who": options.who}).read())
    if not answer["ended"]:
        raise _UsageError(f"no user {options.who!r} is connected, and no participant has that id.")
    print(answer["ended"])


def _diff(client: Client, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        now = Path(folder) / "now.sqlite"
        _save_backup(client, options, now)
        _diff_files(options.file, now)


def _diff_files(before: str | Path, after: str | Path) -> None:
    old, new = asyncio.run(heads(Path(before))), asyncio.run(heads(Path(after)))
    for uri in sorted(old.keys() | new.keys()):
        a, b = old.get(uri), new.get(uri)
        if a is None or b is None:
            found, sign = (a, "-") if a is not None else (b, "+")
            print(printable(f"{sign} {uri} {found.last if found is not None else 0}"))
        elif a.epoch != b.epoch:
            print(printable(f"! {uri} {a.last} {b.last} (another history)"))
        elif a.last != b.last:
            print(printable(f"~ {uri} {a.last} {b.last}"))


def _backup(client: Client, options: argparse.Namespace) -> None:
    _save_backup(client, options, Path(options.file))


def _save_backup(client: Client, options: argparse.Namespace, path: Path) -> None:
    path.touch(mode=0o600, exist_ok=False)  # it holds the messages of all users
    try:
        with path.open("wb") as file, _administer(client, options, "backup", {}) as copy:
            shutil.copyfileobj(copy, file)
            if copy.length:
                raise _UsageError("the server ended in the midst of the backup.")
    except BaseException:
        path.unlink()
        raise


def _compact(client: Client, options: argparse.Namespace) -> None:
    print(msgspec.json.decode(_administer(client, options, "compact", {}).read())["freed"])


def _administer(
    client: Client, options: argparse.Namespace, what: str, body: dict[str, str]
) -> http.client.HTTPResponse:
    """Ask the server that ``client`` is connected to for something that needs the right to administer."""
    url = options.url or os.environ.get("EBUS_URL", "")
    address = f"{url.rstrip('/')}/ebus/api/{what}"  # the client has checked that it is a server's
    request = urllib.request.Request(address, msgspec.json.encode(body), method="POST")  # noqa: S310
    request.add_header("Authorization", f"token {options.token or os.environ.get('EBUS_TOKEN', '')}")
    request.add_header("Content-Type", "application/json")
    context = tls_context(url, os.environ.get("EBUS_CERT", ""))
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, context=context)  # noqa: S310
    except urllib.error.HTTPError as refused:
        try:
            text = msgspec.json.decode(refused.read())["text"]
        except (msgspec.MsgspecError, LookupError, TypeError):
            text = refused.reason
        raise _UsageError(f"{client.where} refused: {text}") from None
    return answer


def _open(client: Client, options: argparse.Namespace, *, create: bool = False) -> Bus[Any, Any]:
    return client.open_bus(options.name, scope=options.scope or "server", create=create)


def _tell(text: str) -> None:
    print(f"jupyter ebus: {printable(text)}", file=sys.stderr)


def _print(found: Any) -> None:
    sys.stdout.buffer.write(printable_json(msgspec.json.encode(found)) + b"\n")
    sys.stdout.flush()


# --- options ----------------------------------------------------------------------------------------------------------


def _since(text: str) -> Since:
    if text == "start":
        return "start"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError("'start', an offset, or -n for the last n") from None


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser, commands = _parser()
    if argv and argv[0] in commands:  # only a parser without sub-commands allows options anywhere
        return commands[argv[0]].parse_intermixed_args(list(argv[1:]))
    return parser.parse_args(argv)


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(prog="jupyter ebus", description="Take part in the buses of a Jupyter server.")
    parser.add_argument("--version", action="version", version=ebus_jupyter.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[Client, argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        sub.add_argument("--url", default="", help="the server's base URL; default: EBUS_URL")
        sub.add_argument(
            "--token",
            default="",
            help="the server's token; default: EBUS_TOKEN, which other users of the machine can't see",
        )
        if name not in ("ls", "kick", "backup", "diff", "compact"):
            sub.add_argument("--scope", help="default: server; replay: as recorded")
        return sub

    ls = command("ls", _ls, "List the named buses within reach.")
    ls.add_argument("--json", action="store_true", help="as JSON lines")

    tail = command("tail", _tail, "Print a bus's messages as JSON lines, then new ones as they are written.")
    tail.add_argument("name")
    tail.add_argument("-n", type=int, default=10, metavar="N", help="begin with the last N (default 10)")
    tail.add_argument("--since", type=_since, metavar="WHERE", help="begin at the start, or after an offset")
    tail.add_argument("--no-follow", dest="follow", action="store_false", help="end after the messages that are there")

    write = command("write", _write, "Write a value, and print its offset.")
    write.add_argument("name")
    write.add_argument("value", nargs="?", help="JSON; without it, or with -, each line of stdin is one value")
    write.add_argument("--text", action="store_true", help="the value is text, not JSON")
    write.add_argument("--key", help="the entry to set, on a bus that retains by key")
    write.add_argument("--to", action="append", metavar="USER", help="only this user receives it (may be repeated)")
    write.add_argument("--expect", type=int, metavar="OFFSET", help="only if this is the last offset")

    rm = command("rm", _rm, "Delete buses and everything they keep, for everyone.")
    rm.add_argument("names", nargs="+", metavar="name")

    types = command("types", _types, "Print TypeScript declarations of the values of a bus.")
    types.add_argument("name")

    record = command("record", _record, "Write a bus's messages to a file, until interrupted.")
    record.add_argument("name")
    record.add_argument("file")
    record.add_argument("--seconds", type=float, help="stop after so many seconds")
    record.add_argument("-n", type=int, help="stop after so many messages")
    record.add_argument("--since", type=_since, metavar="WHERE", help="begin at the start, or after an offset")

    replay = command("replay", _replay, "Write the messages of a recording to a bus.")
    replay.add_argument("file")
    replay.add_argument("name", nargs="?", help="the bus; default: as recorded")
    replay.add_argument("--speed", type=float, help="1: at the recorded pace, 2: twice as fast; default: at once")

    kick = command("kick", _kick, "End the connections of a user, or one of them, and print how many were ended.")
    kick.add_argument("who", help="a user, or the id of a participant")

    backup = command("backup", _backup, "Copy what the server keeps to a new file, while it runs.")
    backup.add_argument("file")

    diff = command("diff", _diff, "Compare two backups: which buses came (+), went (-), grew (~) or began anew (!).")
    diff.add_argument("file", help="a backup")
    diff.add_argument("other", nargs="?", help="a later one; default: what the server keeps now")

    command("compact", _compact, "Return the space of what was deleted, and print how many bytes.")
    return parser, commands.choices


if __name__ == "__main__":
    sys.exit(main())
