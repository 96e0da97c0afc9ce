"""The lock files hold for every machine, and for everything that the project asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def pinned() -> set[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {line.partition("==")[0] for line in lines if line and not line.lstrip().startswith("#")}


def test_constraints_pin_every_requirement_of_the_project() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = told["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values(), told["dependency-groups"]["build"]]
    names = {
        re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-") for group in groups for requirement in group
    }
    assert names - pinned() == {"ebus-jupyter"}


def test_constraints_name_no_registry_and_no_local_path() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r" *#.*|[a-z0-9.-]+==[\w.!+]+( ; .+)?", line), line
        assert not re.search(r"://|\s/", line), line


def test_package_lock_names_no_registry() -> None:
    assert '"resolved"' not in (ROOT / "js" / "package-lock.json").read_text()
