"""The benchmarks run and report. No test asserts how fast anything is: tests share the machine with anything."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import large, report, run
from .peers import comm, jupyter
from .report import Figure, Goal, Section

OF_THE_EXTRA = {
    "NATS core",
    "nats-py, JetStream",
    "Redis publish",
    "python-socketio",
    "ypywidgets",
    "jupyter-collaboration room",
}
"""Peers that need what `make bench` installs and `make test` does not."""


ALL = (
    large.CONFIG
    + comm.UNLIMITED
    + f"c.ServerApp.jpserver_extensions = {{'ebus_jupyter': True, {jupyter.EXTENSION!r}: True}}\n"
)


@pytest.fixture(scope="module")
def running() -> Iterator[jupyter.Server]:
    with jupyter.server(ALL) as server:
        yield server


@pytest.fixture
def one_server(running: jupyter.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting servers takes most of the time: all peers that need a Jupyter server of this environment share one."""
    own = jupyter.server

    def server(config: str, python: Path | str = sys.executable) -> contextlib.AbstractContextManager[jupyter.Server]:
        return contextlib.nullcontext(running) if python == sys.executable else own(config, python)

    monkeypatch.setattr(jupyter, "server", server)


@pytest.mark.usefixtures("one_server")
@pytest.mark.parametrize("name", run.BENCHMARKS)
def test_benchmark_measures_us_and_its_peers(name: str) -> None:
    for section in run.BENCHMARKS[name](run.QUICK, lambda _: None):
        assert set(section.missing) <= OF_THE_EXTRA, section.missing
        assert not [why for why in section.missing.values() if why.startswith("it failed")], section.missing
        assert section.ours in section.rows
        for row in section.rows.values():
            assert row
            assert set(row) & {figure.name for figure in section.figures}
        assert len(list(section.judged())) == len(section.goals) > 0


def test_report_is_a_table_json_and_a_plot(tmp_path: Path) -> None:
    speed, wait = Figure("speed", "speed", "/s", True), Figure("wait", "wait", "ms", False)
    rows = {"we": {"speed": 300.0, "wait": 2.0}, "they": {"speed": 10.0, "wait": 1.0}}
    goals = (Goal("speed", 20, "they"), Goal("wait", 1.5), Goal("speed", 2, "absent"))
    section = Section("A race", "we", (speed, wait), goals, rows, {"absent": "not installed"})

    lines = report.table([section]).splitlines()
    they = next(line for line in lines if line.startswith("  they"))
    assert "10  (×30)" in they
    assert "1  (×0.50)" in they
    assert "  FAILED   absent: not installed" in lines

    assert "  reached  speed: ×30 they (to reach: ×20)" in lines
    assert "  MISSED   wait: 2 ms (at most 1.5)" in lines
    assert "  MISSED   speed: not measured" in lines

    lost_in_noise = Section("A race", "we", (wait,), (Goal("wait", 1.5),), {"we": {"wait": -80.7}})
    assert [reached for _, reached in lost_in_noise.judged()] == [False]

    report.write([section], tmp_path)
    assert json.loads((tmp_path / "benchmarks.json").read_text())["sections"][0]["rows"] == rows
    assert "A race" in (tmp_path / "benchmarks.svg").read_text()
    assert (tmp_path / "benchmarks.png").read_bytes().startswith(b"\x89PNG")


def test_run_fails_if_a_peer_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    section = Section("A race", "we", (), missing={"Redis publish": "no redis-server"})
    monkeypatch.setitem(run.BENCHMARKS, "start", lambda effort, note: [section])
    monkeypatch.setattr(report, "write", lambda sections, folder: None)
    with pytest.raises(SystemExit, match="Redis publish"):
        run.main(["start", "--quick", "--results", str(tmp_path)])
