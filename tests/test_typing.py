"""mypy and pyright agree with `typing_examples`, and find no error in the Python examples of the README and the docs.

The blocks of a page are checked as one module, in which each block is a function inside the previous one: it may ``await``,
it uses what earlier blocks define, and it may define a name anew. Lines keep their numbers, so that an error names the
page's own line. A block after ``<!-- skip: next -->`` is not checked.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = Path(__file__).parent / "typing_examples.py"

FENCE = re.compile(r"^( *)```(\w*)")
PRELUDE = "from typing import Any; c: Any = None; shell: Any = None"
"""On the first line of a module, which is a page's title: the names that Jupyter gives to a configuration file."""

CHECKERS = {
    "mypy": [
        "mypy",
        "--config-file=",
        "--cache-dir=.mypy_cache/examples",
        "--check-untyped-defs",
        "--follow-imports=silent",
        "--ignore-missing-imports",
    ],
    "pyright": ["pyright", "--level=error", "--pythonpath", sys.executable],
}


def module_of(page: str) -> tuple[str, int]:
    """The Python blocks of a Markdown page as a module with the page's line numbers; and how many blocks there are."""
    lines = [PRELUDE]
    depth = 0
    fence: re.Match[str] | None = None
    skip_next = in_example = False
    for line in page.splitlines()[1:]:
        found = FENCE.match(line)
        if fence is None and found is not None:
            fence, in_example = found, found[2] == "python" and not skip_next
            skip_next = False
            lines.append(" " * depth + f"async def block_{depth + 1}() -> None:" if in_example else "")
            depth += in_example
        elif fence is not None and found is not None:
            lines.append(" " * depth + "pass" if in_example else "")
            fence, in_example = None, False
        elif fence is not None and in_example:
            lines.append(" " * depth + statement(line.removeprefix(fence[1])))
        else:
            skip_next = "<!-- skip: next" in line or (skip_next and not line.strip())
            lines.append("")
    return "\n".join(lines) + "\n", depth


def statement(line: str) -> str:
    """A line of a notebook's cell as Python: magics are not."""
    if line.startswith("%load_ext ebus_jupyter"):
        return "import ebus_jupyter as ebus"
    return "pass" if line.startswith(("%", "!")) else line


def test_blocks_become_nested_functions_with_their_line_numbers() -> None:
    skipped = "<!-- skip: next -->\n```python\ny?\n```"
    in_a_list = " - item\n   ```python\n   %who\n   await x.z()\n   ```"
    page = f"# Title\n\n```python\nimport x\n```\n{skipped}\n{in_a_list}"
    source, blocks = module_of(page)
    assert blocks == 2
    assert source.splitlines()[2:] == [
        "async def block_1() -> None:",
        " import x",
        " pass",
        *[""] * 5,
        " async def block_2() -> None:",
        "  pass",
        "  await x.z()",
        "  pass",
    ]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A module for each page that has examples."""
    folder = tmp_path_factory.mktemp("pages")
    counts: dict[str, int] = {}
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        source, blocks = module_of(page.read_text())
        name = page.relative_to(ROOT).with_suffix("").as_posix().replace("/", "_").replace("-", "_")
        if blocks:
            counts[name] = blocks
            (folder / f"{name}.py").write_text(source)
    assert counts.get("README", 0) > 0, "the README has no Python example: is the extractor broken?"
    assert any(name.startswith("docs_") for name in counts), "the docs have no Python example: is the extractor broken?"
    return sorted(folder.iterdir())


@pytest.mark.parametrize("checker", CHECKERS)
def test_examples_pass_the_type_checker(checker: str, modules: list[Path]) -> None:
    program, *options = CHECKERS[checker]
    found = subprocess.run(
        [sys.executable, "-m", program, *options, str(EXAMPLES), *map(str, modules)],
        cwd=ROOT,
        env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "MYPY_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_type_checker_notices_a_wrong_example(checker: str, tmp_path: Path) -> None:
    source, _ = module_of('# Wrong\n```python\nimport ebus_jupyter as ebus\nebus.bus("n", int).write("one")\n```\n')
    (tmp_path / "wrong.py").write_text(source)
    program, *options = CHECKERS[checker]
    found = subprocess.run(
        [sys.executable, "-m", program, *options, str(tmp_path / "wrong.py")], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 1
    assert "wrong.py:4" in found.stdout
