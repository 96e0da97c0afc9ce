"""Imports go one way. A newcomer who reads a module needs to know only what is to its left.

errors ← core ← backends, transports ← broker ← client ← widgets ← magics      broker, client ← server
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ebus_jupyter"

MAY_IMPORT = {
    "errors": set(),
    "core": {"errors"},
    "backends": {"errors", "core"},
    "transports": {"errors", "core"},
    "broker": {"errors", "core", "backends"},
    "client": {"errors", "core", "transports", "broker"},
    "recording": {"errors", "core", "client"},
    "server": {"errors", "core", "backends", "transports", "broker", "client", ""},
    "widgets": {"errors", "core", "client", ""},
    "magics": {"errors", "core", "client", "widgets", ""},
    "cli": {"errors", "core", "client", "recording", ""},
    "pytest_plugin": {"errors", "core", "client", ""},
}
"""Rooms, and the rooms they may import. "" is the package itself: its public names, which are loaded when asked for."""

IMPURE = {"asyncio", "time", "socket", "random", "threading", "uuid", "secrets", "os", "sqlite3", "select"}
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
            else:
                yield named, id(node) in typing_only


def wrong_imports(source: str, module: str) -> list[str]:
    """What ``module`` (such as "ebus_jupyter.core.log") imports and may not."""
    room = module.split(".")[1]
    wrong = []
    for name, for_types in imports(source, module):
        first, _, rest = name.partition(".")
        if first == "ebus_jupyter":
            target = rest.split(".")[0]
            target = target if target in MAY_IMPORT else ""
            if target != room and target not in MAY_IMPORT[room]:
                wrong.append(name)
        elif (room == "core" and first in IMPURE) or (
            first in ONLY_IN and room not in ONLY_IN[first] and not for_types
        ):
            wrong.append(name)
    if room == "core":
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
        ("ebus_jupyter.core.log", "import asyncio", ["asyncio"]),
        ("ebus_jupyter.core.log", "from datetime import datetime\ndatetime.fromtimestamp(0)", []),
        ("ebus_jupyter.core.log", "import datetime\ndatetime.datetime.now()", ["datetime.datetime.now"]),
        ("ebus_jupyter.core.log", "from .message import X\nfrom ebus_jupyter.errors import Y", []),
        ("ebus_jupyter.core.log", "from ebus_jupyter.backends.base import X", ["ebus_jupyter.backends.base"]),
        ("ebus_jupyter.backends.sqlite", "from ebus_jupyter.client.bus import X", ["ebus_jupyter.client.bus"]),
        ("ebus_jupyter.client.bus", "def f():\n    from ebus_jupyter import server", ["ebus_jupyter.server"]),
        ("ebus_jupyter.client.bus", "from ..widgets.share import share", ["ebus_jupyter.widgets.share"]),
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
