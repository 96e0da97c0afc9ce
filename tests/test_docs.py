"""What the documents say is so."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_configuration_page_is_what_the_code_says() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "configuration.py"))["page"]()
    assert (ROOT / "docs" / "configuration.md").read_text() == made, "run `make docs`"


@pytest.mark.parametrize(
    "page", [path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*| \"[^)]*)?\)", text):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


def test_each_test_that_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    named = re.findall(r'\((tests/[\w/]+\.py) "(\w+)"\)', text)
    assert len(named) == len(re.findall(r"\| \[", text)) > 15, "each row of the table has its test"
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text(), f"{path} has no {test}"
