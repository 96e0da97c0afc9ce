"""Imports go one way, and no two files import each other in a circle.

::

    terminal ← errors ← core.protocol ← core.broker ← backends ← broker
                                      ← core.client ← client ← recording, widgets ← cli, magics
             core.protocol ← transports ← broker, client ← server

`core.broker` and `core.client`, the two halves of the protocol, do not know each other. A circle counts even where one of
its imports is for type checkers only: whoever reads one file of a circle has to read them all.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ebus_jupyter"

MAY_IMPORT = {
    "terminal": set(),
    "errors": {"terminal"},
    "core.protocol": {"errors"},
    "core.broker": {"errors", "core.protocol"},
    "core.client": {"errors", "core.protocol"},
    "backends": {"errors", "core.protocol", "core.broker"},
    "transports": {"errors", "core.protocol"},
    "broker": {"errors", "core.protocol", "core.broker", "backends"},
    "client": {"terminal", "errors", "core.protocol", "core.client", "transports", "broker"},
    "recording": {"errors", "core.protocol", "core.client", "client"},
    "server": {"terminal", "errors", "core.protocol", "backends", "transports", "broker", "client", ""},
    "widgets": {"terminal", "errors", "core.protocol", "core.client", "client", ""},
    "magics": {"terminal", "errors", "core.protocol", "client", "widgets", ""},
    "cli": {"terminal", "errors", "core.protocol", "core.client", "client", "recording", "transports", "backends", ""},
    "": {"terminal", "errors", "core.protocol", "client", "widgets", "server", "magics"},
}
"""Rooms, and the rooms they may import. "" is the package itself: its public names, which are loaded when asked for."""

FOLDERS = {
    ".".join(path.parent.relative_to(PACKAGE.parent).parts)
    for path in PACKAGE.rglob("__init__.py")
    if path.parent != PACKAGE
}
"""Packages below the root: ``from .protocol import frames`` imports the module `frames`."""

IMPURE = {"asyncio", "time", "socket", "random", "threading", "uuid", "secrets", "os", "sqlite3", "select"}
PURE = {"uuid.UUID"}
"""Parts of them that are: a type makes no numbers up."""
CLOCKS = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
ONLY_IN = {
    "jupyter_server": {"server"},
    "tornado": {"server"},
    "ipywidgets": {"widgets"},
    "anywidget": {"widgets"},
    "IPython": {"magics", "widgets"},
}


def imports(source: str, module: str) -> Iterator[tuple[str, bool]]:
    """What a module imports, absolute; and whether only for type checkers."""
    tree = ast.parse(source)
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    package = module.split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level] if node.level else []
            named = ".".join([*base, *([node.module] if node.module else [])])
            if named == "ebus_jupyter":
                for alias in node.names:
                    yield f"ebus_jupyter.{alias.name}", id(node) in typing_only
            elif named in FOLDERS:
                for alias in node.names:
                    yield f"{named}.{alias.name}", id(node) in typing_only
            elif named == "uuid":
                for alias in node.names:
                    yield f"uuid.{alias.name}", id(node) in typing_only
            else:
                yield named, id(node) in typing_only


def room_of(module: str) -> str:
    """The room that a module of the package is in; "" for the package itself and its public names."""
    parts = module.split(".")[1:]
    for room in (".".join(parts[:2]), parts[0] if parts else ""):
        if room in MAY_IMPORT:
            return room
    return ""


def wrong_imports(source: str, module: str) -> list[str]:
    """What ``module`` (such as "ebus_jupyter.core.protocol.log") imports and may not."""
    room = room_of(module)
    is_core = room.startswith("core.")
    wrong = []
    for name, for_types in imports(source, module):
        first = name.partition(".")[0]
        if first == "ebus_jupyter":
            target = room_of(name)
            if target != room and target not in MAY_IMPORT[room]:
                wrong.append(name)
        elif (is_core and first in IMPURE and name not in PURE) or (
            first in ONLY_IN and room not in ONLY_IN[first] and not for_types
        ):
            wrong.append(name)
    if is_core:
        called = [ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
        wrong += [name for name in called if ".".join(name.split(".")[-2:]) in CLOCKS]
    return wrong


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if len(parts) > 2 or parts[-1] != "__init__":
            found.append((".".join(parts), path))
    return found


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_a_module_imports_only_what_its_room_may(module: str, path: Path) -> None:
    assert wrong_imports(path.read_text(), module) == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("ebus_jupyter.core.protocol.log", "import asyncio", ["asyncio"]),
        ("ebus_jupyter.core.protocol.log", "from datetime import datetime\ndatetime.fromtimestamp(0)", []),
        ("ebus_jupyter.core.protocol.log", "import datetime\ndatetime.datetime.now()", ["datetime.datetime.now"]),
        ("ebus_jupyter.core.protocol.log", "from .message import X\nfrom ebus_jupyter.errors import Y", []),
        ("ebus_jupyter.core.protocol.log", "from ebus_jupyter.backends.base import X", ["ebus_jupyter.backends.base"]),
        (
            "ebus_jupyter.core.broker.bus",
            "from ebus_jupyter.core.client import reader",
            ["ebus_jupyter.core.client.reader"],
        ),
        ("ebus_jupyter.core.client.reader", "from ..broker.bus import X", ["ebus_jupyter.core.broker.bus"]),
        ("ebus_jupyter.backends.sqlite", "from ebus_jupyter.client.bus import X", ["ebus_jupyter.client.bus"]),
        ("ebus_jupyter.client.bus", "def f():\n    from ebus_jupyter import server", ["ebus_jupyter.server"]),
        (
            "ebus_jupyter.client.bus",
            "from ..widgets.sharing.share import share",
            ["ebus_jupyter.widgets.sharing.share"],
        ),
        ("ebus_jupyter.client.bus", "import tornado.web", ["tornado.web"]),
        ("ebus_jupyter.server.handlers", "import ipywidgets", ["ipywidgets"]),
        ("ebus_jupyter.server.handlers", "import tornado.web", []),
    ],
)
def test_the_rule_notices_what_it_forbids(module: str, source: str, wrong: list[str]) -> None:
    assert wrong_imports(source, module) == wrong


def test_the_client_can_be_imported_without_widgets_or_a_server() -> None:
    import subprocess
    import sys

    code = (
        "import sys, ebus_jupyter.client.discover\n"
        "heavy = {'ipywidgets', 'anywidget', 'tornado', 'jupyter_server', 'IPython', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- circles --------------------------------------------------------------------------------------------------------


def imported_files(sources: dict[str, str]) -> dict[str, set[str]]:
    """For each module, the modules of ``sources`` that it imports, for type checkers included."""
    graph: dict[str, set[str]] = {module.removesuffix(".__init__"): set() for module in sources}
    for file, source in sources.items():
        module = file.removesuffix(".__init__")
        for name, _ in imports(source, file):
            while name and name not in graph:  # a name in a module: the module
                name = name.rpartition(".")[0]
            if name and name != module:
                graph[module].add(name)
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that can all reach each other."""

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        left = [start]
        while left:
            for name in graph[left.pop()] - found:
                found.add(name)
                left.append(name)
        return found

    reach = {module: reachable(module) for module in graph}
    in_circle = [module for module in graph if module in reach[module]]
    groups = {tuple(sorted(other for other in in_circle if other in reach[m] and m in reach[other])) for m in in_circle}
    return [list(group) for group in sorted(groups)]


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles(imported_files({name: path.read_text() for name, path in modules()})) == []


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"ebus_jupyter.x.a": "from .b import f", "ebus_jupyter.x.b": ""}, []),
        (
            {"ebus_jupyter.x.a": "from .b import f", "ebus_jupyter.x.b": "if TYPE_CHECKING:\n    from .a import A"},
            [["ebus_jupyter.x.a", "ebus_jupyter.x.b"]],
        ),
        (
            {"ebus_jupyter.x.__init__": "from .a import f", "ebus_jupyter.x.a": "from ebus_jupyter.x import g"},
            [["ebus_jupyter.x", "ebus_jupyter.x.a"]],
        ),
        (
            {
                "ebus_jupyter.x.a": "def f():\n    from .b import f",
                "ebus_jupyter.x.b": "import ebus_jupyter.x.c",
                "ebus_jupyter.x.c": "from ebus_jupyter.x.a import g",
            },
            [["ebus_jupyter.x.a", "ebus_jupyter.x.b", "ebus_jupyter.x.c"]],
        ),
    ],
)
def test_circles_are_found(sources: dict[str, str], found: list[list[str]]) -> None:
    assert circles(imported_files(sources)) == found
