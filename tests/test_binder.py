"""Checks Binder's configuration against the checkout: a build on Binder takes minutes, and fails far away."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
BINDER = ROOT / "binder"


def test_binder_opens_an_existing_notebook() -> None:
    layout = json.loads((BINDER / "workspace.json").read_text())["data"]
    current = layout["layout-restorer:data"]["main"]["current"]
    assert (ROOT / layout[current]["data"]["path"]).exists()
    assert f"/lab/tree/{layout[current]['data']['path']}" in (BINDER / "postBuild").read_text()


def test_post_build_stops_at_the_first_failing_command() -> None:
    script = BINDER / "postBuild"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[0].startswith("#!")
    assert "set -euo pipefail" in script.read_text()
    subprocess.run(["bash", "-n", script], check=True)
