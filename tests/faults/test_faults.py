"""Half a minute of faults of the server and its lines. ``make faults`` goes on for longer, with kernels and pages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .run import run


@pytest.mark.timeout(600)  # it ends when everybody has its answers, which a busy machine takes time for
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the files of another process, for a full disk")
def test_no_fault_violates_a_law(tmp_path: Path) -> None:
    table = run(tmp_path, seconds=30, faults=10**9, seed=7, chapter_seconds=30, chapters=["server"])
    assert table.broken == []
    assert table.violations == [], "\n".join([str(table), *table.violations[:20]])
    assert sum(table.faults.values()) > 5
    assert all(table.total[law] for law in range(1, 10)), f"a law was never looked at:\n{table}"
