"""Magics for notebooks, there after ``%load_ext ebus_jupyter``.

::

    %ebus                           where this kernel's buses are
    %ebus ls                        the named buses within reach
    %ebus tail votes -n 5           the last messages
    %ebus write votes {"n": 1}      write a value (JSON) and show its offset
    %ebus off votes                 stop the cell that `%%on votes` started

    %%on votes
    print(message.sender.name, "says", value)

A cell that begins with ``%%on`` runs for each value from then on, with ``value`` and ``message`` in the notebook's
namespace; between cells, never in the middle of one. Run again, changed or not, it replaces its former self. It may
``await``. Its output and its errors show below it.

BUS is a variable that holds a bus, or the name of a bus, with ``--scope`` if that is not "server".
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand

import ebus_jupyter

from .errors import EbusError, Lagged
from .terminal import printable

# Every kernel of a class loads this at once; the client, which takes longer to import, is for those that use it.
if TYPE_CHECKING:
    from .client.bus import Bus
    from .core.protocol.message import Message

RECEIVING_SECONDS = 15.0
"""The time that ``%%on`` waits until the broker sends the bus's messages."""

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
        """Look at buses, and write to them; described in `ebus_jupyter.magics`."""
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
        """Run this cell for each value of a bus; described in `ebus_jupyter.magics`."""
        from .client.waiting import NOT_YET

        name, scope, more = _words(line)
        if not name or more:
            raise UsageError("use %%on BUS [--scope SCOPE].")
        run = self._compiled(cell)  # a cell that can't be compiled leaves the one before it in place
        try:
            bus = self._bus(name, scope)
        except EbusError as error:
            raise UsageError(f"{type(error).__name__}: {error}") from None
        if bus.address in self._running:
            self._end(bus.address)
        self._running[bus.address] = bus, run
        bus.on_message(run)
        # Once this cell is done, it runs for everything that anyone writes.
        bus.arrivals.wait(
            lambda: None if bus.is_receiving or bus.status == "closed" else NOT_YET,
            RECEIVING_SECONDS,
            f"the broker does not send the messages of {bus.name} yet",
        )

    # --- commands ---------------------------------------------------------------------------------------------------

    def _ls(self, rest: str) -> None:
        if rest:
            raise UsageError(f"%ebus ls takes no arguments; {HELP}.")
        from .client.bus_table import table

        print(table(ebus_jupyter._client().buses()))

    def _tail(self, rest: str) -> None:
        name, scope, more = _words(rest)
        count = more[1] if len(more) == 2 and more[0] == "-n" else "" if more else "10"
        if not name or not count.isdecimal():
            raise UsageError("use %ebus tail BUS [-n 10] [--scope SCOPE].")
        bus = self._bus(name, scope, create=False)
        for message in _last(bus, int(count)) if int(count) else ():
            sender = message.sender.name or message.sender.user or message.sender.kind
            key = "" if message.key is None else f" {message.key}"
            value = "(removed)" if message.deleted else repr(message.value)
            print(printable(f"{message.offset:>6} {sender}{key}: {value}"))
        bus.close()

    def _write(self, rest: str) -> None:
        name, scope, text = _first(rest)
        if not name or not text:
            raise UsageError('use %ebus write BUS [--scope SCOPE] JSON, such as %ebus write votes {"n": 1}.')
        import msgspec

        from .core.protocol import json_value

        try:
            value = msgspec.json.decode(text)
        except msgspec.MsgspecError as error:
            raise UsageError(f"{text[:40]!r} is not JSON ({error}).") from None
        bus = self._bus(name, scope)
        print(bus.write(bus.codec.decode(json_value.from_json(value))).result(15))
        bus.close()

    def _off(self, rest: str) -> None:
        name, scope, more = _words(rest)
        if not name or more:
            raise UsageError("use %ebus off BUS [--scope SCOPE].")
        value = self._variable(name)
        meant = [
            address
            for address, (bus, _) in self._running.items()
            if (value is not None and scope is None and address == value.address)
            or (bus.name, bus.scope) == (name, scope or "server")
        ]
        for address in meant:
            self._end(address)
        if not meant:
            print(f"no %%on cell is running for {name}.")

    # --- buses and cells --------------------------------------------------------------------------------------------

    def _bus(self, name: str, scope: str | None, *, create: bool = True) -> Bus[Any, Any]:
        """The bus of that variable or name; the caller closes it."""
        value = self._variable(name)
        if value is not None and scope is None:
            return value.clone()
        return ebus_jupyter._client().open_bus(name, scope=scope or "server", create=create)

    def _variable(self, name: str) -> Bus[Any, Any] | None:
        """The bus that the notebook's variable holds; None where it holds none."""
        from .client.bus import Bus

        value = self._shell.user_ns.get(name)
        return value if isinstance(value, Bus) else None

    def _end(self, address: str) -> None:
        bus, run = self._running.pop(address)
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
                # As IPython runs cells: the result is a coroutine if the cell awaits.
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
    """Split a line into a bus's name, its scope, and the rest of the line as it stands."""
    name, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    if not rest.startswith("--scope"):
        return name, None, rest
    scope, _, rest = rest.removeprefix("--scope").lstrip("= ").partition(" ")
    return name, scope, rest.strip()


def _words(line: str) -> tuple[str, str | None, list[str]]:
    """Split a line into a bus's name, its scope, and the other words, in any order."""
    words = line.replace("--scope=", "--scope ").split()
    scope = None
    if "--scope" in words:
        i = words.index("--scope")
        scope = words[i + 1] if i + 1 < len(words) else ""
        del words[i : i + 2]
    return (words[0] if words else ""), scope, words[1:]


def load(shell: Any) -> None:
    """Register the magics in an IPython shell."""
    shell.register_magics(EbusMagics)
