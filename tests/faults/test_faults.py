"""A quarter of a minute of each kind of chapter; ``make faults SECONDS=3600`` goes on for longer."""

from __future__ import annotations

from pathlib import Path

from .run import run


def test_no_fault_violates_a_law(tmp_path: Path) -> None:
    table = run(tmp_path, seconds=30, faults=10**9, seed=7, chapter_seconds=15)
    assert table.broken == []
    assert table.violations == [], "\n".join([str(table), *table.violations[:20]])
    assert sum(table.faults.values()) > 20
    assert all(table.total[law] for law in range(1, 10)), f"a law was never looked at:\n{table}"
