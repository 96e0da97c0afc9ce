"""The documents agree with the code: links, names of functions and tests, and the page that is generated."""

from __future__ import annotations

import ast
import difflib
import re
import runpy
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_configuration_page_matches_the_code() -> None:
    generated = runpy.run_path(str(ROOT / "scripts" / "configuration.py"))["page"]()
    assert (ROOT / "docs" / "configuration.md").read_text() == generated, "run `make docs`"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*| \"[^)]*)?\)", text):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


# --- the README's table of tests --------------------------------------------------------------------------------------


def test_each_test_that_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    named = re.findall(r'\((tests/[\w/]+\.py) "(\w+)"\)', text)
    assert len(named) == len(re.findall(r"\| \[", text)) > 15, "each row of the table has its test"
    wrong = [f"{path} has no {test}; {nearest_test(test)}" for path, test in named if test not in names_of_tests(path)]
    assert not wrong, "\n".join(wrong)


@cache
def names_of_tests(path: str) -> list[str]:
    file = ROOT / path
    return re.findall(r"def (test_\w+)\(", file.read_text()) if file.exists() else []


def nearest_test(name: str) -> str:
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")]
    where = {test: path for path in files for test in names_of_tests(path)}
    near = difflib.get_close_matches(name, where, n=3, cutoff=0.4)
    return "the nearest: " + ", ".join(f"{where[test]} {test}" for test in near)


# --- SECURITY.md ------------------------------------------------------------------------------------------------------


def test_each_wall_of_the_threat_model_names_a_test_that_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    walls = text.partition("## Walls")[2].partition("## No wall")[0]
    assert walls.count("\n- ") > 20
    for wall in re.split(r"\n(?=- |### )", walls):
        if not wall.startswith("- "):
            continue
        named = re.findall(r'\]\(([\w/.]+) "([^"]+)"\)', wall)
        assert named, f"no test is named by: {wall}"
        for path, test in named:
            file = (ROOT / path).read_text()
            assert test in (names_of_tests(path) if path.endswith(".py") else file), f"{path} has no {test}"


# --- docs/architecture.md ---------------------------------------------------------------------------------------------


def test_each_name_in_the_architecture_page_exists() -> None:
    references = re.findall(r"\[`([\w.]+)`\]\(\.\./([\w/.]+\.(?:py|ts))\)", ARCHITECTURE.read_text())
    named = [(name, path) for name, path in references if not path.endswith(f"/{name}")]  # `cli.py` names itself
    assert len(named) > 60
    wrong = [f"{path} has no {name}; {defined_elsewhere(name)}" for name, path in named if not defines(path, name)]
    assert not wrong, "\n".join(wrong)


def test_the_architecture_page_names_each_room() -> None:
    text = ARCHITECTURE.read_text()
    linked = {target.rstrip("/") for target in re.findall(r"\]\(\.\./([\w/.]+)\)", text)}
    missing = [room for room in rooms() if room not in linked]
    assert not missing, f"docs/architecture.md has no row for {', '.join(missing)}"


def rooms() -> Iterator[str]:
    """Python's packages and top-level modules, TypeScript's folders."""
    package, page = ROOT / "ebus_jupyter", ROOT / "js" / "src"
    folders = [file.parent for file in package.rglob("__init__.py") if file.parent != package]
    modules = [file for file in package.glob("*.py") if file.name != "__init__.py"]
    typescript = {file.parent for file in page.rglob("*.ts") if file.parent != page}
    for path in sorted([*folders, *modules, *typescript]):
        yield path.relative_to(ROOT).as_posix()


@cache
def names_in(path: str) -> frozenset[str]:
    """What a module defines: ``Class``, ``Class.method``, ``function``, ``CONSTANT``."""
    file = ROOT / path
    if not file.exists():
        return frozenset()
    text = file.read_text()
    return frozenset(_python_names(ast.parse(text).body) if path.endswith(".py") else _typescript_names(text))


def _python_names(body: list[ast.stmt], within: str = "") -> Iterator[str]:
    for node in body:
        match node:
            case ast.ClassDef():
                yield within + node.name
                yield from _python_names(node.body, f"{within}{node.name}.")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield within + node.name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield within + name


def _typescript_names(text: str) -> Iterator[str]:
    """By their place in the line, which the formatter holds."""
    within = ""
    for line in text.splitlines():
        top = re.match(
            r"(?:export )?(?:default )?(?:abstract |async )*(class|interface|type|const|function)\*? (\w+)", line
        )
        if top:
            within = f"{top[2]}." if top[1] in ("class", "interface") else ""
            yield top[2]
        elif within and (member := re.match(r"(?:  |\t)(?:\w+ )*(#?\w+)[?!]?(?:<[^(]*>)?\s*[(:;=]", line)):
            yield within + member[1]


def defines(path: str, name: str) -> bool:
    return name in names_in(path)


def defined_elsewhere(name: str) -> str:
    sources = [*(ROOT / "ebus_jupyter").rglob("*.py"), *(ROOT / "js" / "src").rglob("*.ts")]
    everywhere = {path.relative_to(ROOT).as_posix(): names_in(path.relative_to(ROOT).as_posix()) for path in sources}
    found = [path for path, names in everywhere.items() if name in names]
    if found:
        return f"it is in {', '.join(found)}"
    last = name.rpartition(".")[2]
    like = [f"{path} {other}" for path, names in everywhere.items() for other in names if other.endswith(f".{last}")]
    return f"like it: {', '.join(sorted(like)[:5]) or 'nothing'}"


def test_names_are_found_in_both_languages() -> None:
    assert defines("ebus_jupyter/core/protocol/log.py", "Log.append")
    assert not defines("ebus_jupyter/core/protocol/log.py", "Log.publish")
    page = "export class Log {\n  readonly size: number;\n  #items = [];\n  async read(after: number): void {\n  get last() {"
    assert set(_typescript_names(page)) == {"Log", "Log.size", "Log.#items", "Log.read", "Log.last"}
