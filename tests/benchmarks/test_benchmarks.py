"""The benchmarks run, and say what they measured. How fast anything is, is not asserted: tests run beside anything."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import report, run
from .peers import comm, jupyter
from .report import Figure, Section

TINY = run.Effort(
    rounds=1, seconds=0.05, subscribers=3, pages=2, lone=2, writes=400, in_flight=20, replay=100, memory=False
)


ALL = (
    jupyter.UNBOUNDED.format(backend="sqlite")
    + comm.UNLIMITED
    + f"c.ServerApp.jpserver_extensions = {{'ebus_jupyter': True, {jupyter.EXTENSION!r}: True}}\n"
)


@pytest.fixture(scope="module")
def running() -> Iterator[jupyter.Server]:
    with jupyter.server(ALL) as server:
        yield server


@pytest.fixture
def one_server(running: jupyter.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting servers is most of the time: here all that need a Jupyter server share one."""
    monkeypatch.setattr(jupyter, "server", lambda config: contextlib.nullcontext(running))


@pytest.mark.usefixtures("one_server")
@pytest.mark.parametrize("name", run.BENCHMARKS)
def test_a_benchmark_measures_us_and_its_peers(name: str) -> None:
    for section in run.BENCHMARKS[name](TINY, lambda _: None):
        assert not {peer: why for peer, why in section.missing.items() if "failed" in why}
        assert section.ours in section.rows
        assert len(section.rows) + len(section.missing) > 1
        for row in section.rows.values():
            assert all(row[figure.name] >= 0 for figure in section.figures)


def test_a_report_is_a_table_a_json_and_a_plot(tmp_path: Path) -> None:
    speed, wait = Figure("speed", "speed", "/s", True), Figure("wait", "wait", "ms", False)
    rows = {"we": {"speed": 300.0, "wait": 2.0}, "they": {"speed": 10.0, "wait": 1.0}}
    section = Section("A race", "we", (speed, wait), rows, {"absent": "not installed"})

    lines = report.table([section]).splitlines()
    they = next(line for line in lines if line.startswith("  they"))
    assert "10  (×30)" in they
    assert "1  (×0.50)" in they
    assert "  absent: left out (not installed)" in lines

    pytest.importorskip("matplotlib")
    report.write([section], tmp_path)
    assert json.loads((tmp_path / "benchmarks.json").read_text())["sections"][0]["rows"] == rows
    assert "A race" in (tmp_path / "benchmarks.svg").read_text()
    assert (tmp_path / "benchmarks.png").read_bytes().startswith(b"\x89PNG")
