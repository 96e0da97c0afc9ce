"""Magics for notebooks, there after ``%load_ext ebus_jupyter``.

::

    %ebus                           where this kernel's buses live
    %ebus ls                        the named buses within reach
    %ebus tail votes -n 5           the last messages
    %ebus write votes {"n": 1}      write a value (JSON) and show its offset
    %ebus off votes                 end what `%%on votes` began

    %%on votes
    print(message.sender.name, "says", value)

A cell that begins with ``%%on`` runs for each value from then on, with ``value`` and ``message`` in the notebook's
namespace; between cells, never in the middle of one. Run it again, changed or not, and the new one takes the place of the
old. It may ``await``. What it prints, and what it raises, shows below it.

Where a bus is meant, it is a variable that holds one, or the name of one, with ``--scope``.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand

import ebus_jupyter

from .client.bus import Bus
from .client.bus_table import table
from .client.open import open_bus
from .client.waiting import NOT_YET
from .core.protocol import json_value as asjson
from .core.protocol.message import Message
from .errors import EbusError, Lagged

HELP = (
    "use %ebus, %ebus ls, %ebus tail BUS [-n 10], %ebus write BUS JSON, or %ebus off BUS "
    "(BUS: a variable or a name, --scope S)"
)


@magics_class
class EbusMagics(Magics):
    """``%ebus`` and ``%%on``."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._shell = shell
        self._running: dict[str, tuple[Bus[Any, Any], Callable[..., Any]]] = {}

    @no_var_expand
    @line_magic
    def ebus(self, line: str) -> None:
        """Look at buses, and write to them; see `ebus_jupyter.magics`."""
        command, _, rest = line.strip().partition(" ")
        commands = {"ls": self._ls, "tail": self._tail, "write": self._write, "off": self._off}
        if not command:
            print(ebus_jupyter.status())
        elif command in commands:
            try:
                commands[command](rest.strip())
            except EbusError as error:
                raise UsageError(f"{type(error).__name__}: {error}") from None
        else:
            raise UsageError(f"there is no %ebus {command}; {HELP}.")

    @no_var_expand
    @cell_magic
    def on(self, line: str, cell: str) -> None:
        """Run this cell for each value of a bus; see `ebus_jupyter.magics`."""
        name, scope, more = _words(line)
        if not name or more:
            raise UsageError("use %%on BUS [--scope SCOPE].")
        run = self._compiled(cell)  # a cell that can't be compiled leaves the one before it in place
        try:
            bus = self._bus(name, scope)
        except EbusError as error:
            raise UsageError(f"{type(error).__name__}: {error}") from None
        if bus.channel.uri in self._running:
            self._end(bus.channel.uri)
        self._running[bus.channel.uri] = bus, run
        bus.on_message(run)
        # When this cell is done, the bus is being listened to: what anyone writes from here on is heard.
        bus.arrivals.wait(
            lambda: NOT_YET if bus.status != "closed" and not bus.channel.log_epoch else None, 15.0, bus.name
        )

    # --- commands ---------------------------------------------------------------------------------------------------

    def _ls(self, rest: str) -> None:
        if rest:
            raise UsageError(f"%ebus ls takes nothing more; {HELP}.")
        print(table(ebus_jupyter._client().buses()))

    def _tail(self, rest: str) -> None:
        name, scope, more = _words(rest)
        count = more[1] if len(more) == 2 and more[0] == "-n" else "" if more else "10"
        if not name or not count.isdecimal():
            raise UsageError("use %ebus tail BUS [-n 10] [--scope SCOPE].")
        bus = self._bus(name, scope, create=False)
        for message in _last(bus, int(count)) if int(count) else ():
            who = message.sender.name or message.sender.user or message.sender.kind
            key = "" if message.key is None else f" {message.key}"
            print(f"{message.offset:>6} {who}{key}: {'(removed)' if message.deleted else repr(message.value)}")
        bus.close()

    def _write(self, rest: str) -> None:
        name, scope, text = _first(rest)
        if not name or not text:
            raise UsageError('use %ebus write BUS [--scope SCOPE] JSON, such as %ebus write votes {"n": 1}.')
        try:
            value = msgspec.json.decode(text)
        except msgspec.MsgspecError as error:
            raise UsageError(f"{text[:40]!r} is not JSON ({error}).") from None
        bus = self._bus(name, scope)
        print(bus.write(bus._incoming.decode(asjson.from_json(value))).result(15))
        bus.close()

    def _off(self, rest: str) -> None:
        name, scope, more = _words(rest)
        if not name or more:
            raise UsageError("use %ebus off BUS [--scope SCOPE].")
        held = self._shell.user_ns.get(name)
        meant = [
            uri
            for uri, (bus, _) in self._running.items()
            if (isinstance(held, Bus) and scope is None and uri == held.channel.uri)
            or (bus.name, bus.scope) == (name, scope or "server")
        ]
        for uri in meant:
            self._end(uri)
        if not meant:
            print(f"no %%on cell is running for {name}.")

    # --- how --------------------------------------------------------------------------------------------------------

    def _bus(self, name: str, scope: str | None, *, create: bool = True) -> Bus[Any, Any]:
        """The bus that is meant, to be closed by the caller."""
        held = self._shell.user_ns.get(name)
        if isinstance(held, Bus) and scope is None:
            return held.clone()
        return open_bus(ebus_jupyter._client(), name, scope=scope or "server", create=create)

    def _end(self, uri: str) -> None:
        bus, run = self._running.pop(uri)
        bus.off(run)
        bus.close()

    def _compiled(self, cell: str) -> Callable[[Message[Any]], Any]:
        shell = self._shell
        source = shell.transform_cell(cell)
        name = shell.compile.cache(source, shell.execution_count, raw_code=cell)
        flags = shell.compile.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(source, name, "exec", flags=flags, dont_inherit=True)

        def run(message: Message[Any]) -> Any:
            shell.user_ns.update(value=message.value, message=message)
            try:
                # IPython runs cells just so; a coroutine comes back where the cell awaits.
                running = eval(code, shell.user_global_ns, shell.user_ns)  # noqa: S307
            except Exception:
                shell.showtraceback()
                return None
            return _awaited(shell, running) if inspect.iscoroutine(running) else None

        return run


async def _awaited(shell: Any, running: Any) -> None:
    try:
        await running
    except Exception:
        shell.showtraceback()


def _last(bus: Bus[Any, Any], n: int) -> Iterator[Message[Any]]:
    stream = bus.messages(since=-n)
    while True:
        try:
            yield stream.get_kept()
        except Lagged:
            continue
        except LookupError:
            return


def _first(line: str) -> tuple[str, str | None, str]:
    """A bus's name, its scope, and the rest of the line as it is."""
    name, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    if not rest.startswith("--scope"):
        return name, None, rest
    scope, _, rest = rest.removeprefix("--scope").lstrip("= ").partition(" ")
    return name, scope, rest.strip()


def _words(line: str) -> tuple[str, str | None, list[str]]:
    """A bus's name, its scope, and what else is said, in any order."""
    words = line.replace("--scope=", "--scope ").split()
    scope = None
    if "--scope" in words:
        i = words.index("--scope")
        scope = words[i + 1] if i + 1 < len(words) else ""
        del words[i : i + 2]
    return (words[0] if words else ""), scope, words[1:]


def load(shell: Any) -> None:
    """Register the magics."""
    shell.register_magics(EbusMagics)
