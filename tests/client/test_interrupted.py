"""Ctrl-C anywhere in a write: that write may be lost, and nothing else."""

from __future__ import annotations

import dis
import sys
import weakref
from functools import cache
from types import CodeType, FrameType
from typing import Any

import pytest

from ebus_jupyter.client import driver
from ebus_jupyter.client.bus import Bus
from ebus_jupyter.client.client import Client

from .conftest import Line
from .test_state import eventually


class Interrupt:
    """Raises KeyboardInterrupt in this thread, at the ``at``-th point in the package where a signal can.

    The interpreter looks for signals after calls, at the beginning of a function, and at the end of a loop's round. It counts
    the instruction there as the one that raises; a trace function can only raise at the next one. Where that has another
    exception handler, as between the last call in a ``with`` block and the block's end, no interrupt is tried.
    """

    def __init__(self, at: int) -> None:
        self._left = at
        self._last: dict[FrameType, int] = {}
        # One object for all frames, kept here: the interpreter drops its own reference when a trace function raises.
        self._tracer = self._trace

    def __enter__(self) -> Interrupt:
        self._before = sys.gettrace()
        sys.settrace(self._tracer)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if "ebus_jupyter" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            last, self._last[frame] = self._last.get(frame), frame.f_lasti
            if last is not None and _can_interrupt(frame.f_code, last, frame.f_lasti) and not _in_finaliser(frame):
                self._left -= 1
                if self._left == 0:
                    raise KeyboardInterrupt
        return self._tracer


@cache
def _can_interrupt(code: CodeType, last: int, current: int) -> bool:
    """Whether a signal can raise after the instruction at ``last`` just as it would at ``current``."""
    if not dis.opname[code.co_code[last]].startswith(("CALL", "RESUME", "JUMP_BACKWARD")):
        return False
    entries = dis.Bytecode(code).exception_entries
    return [entry for entry in entries if entry.start <= last < entry.end] == [
        entry for entry in entries if entry.start <= current < entry.end
    ]


def _in_finaliser(frame: FrameType | None) -> bool:
    """Whether ``frame`` runs for a finaliser: the interpreter reports what that raises, and goes on."""
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_code.co_filename == weakref.__file__:
            return True
        frame = frame.f_back
    return False


def write_interrupted_everywhere(bus: Bus[int, int]) -> int:
    """Interrupt a write at its first point, its second, …; each time, write another one. Returns how often."""
    at = 0
    while True:
        at += 1
        interrupt = Interrupt(at)
        try:
            with interrupt:
                bus.write(-at)
        except KeyboardInterrupt:
            bus.write(at)
            if at % 10 == 0:
                assert bus.client.flush(10) == 0, f"no answer after an interrupt at point {at}"
        else:
            return at - 1


def check_interrupted_writes(client: Client, flush_size: int) -> None:
    """All writes but the interrupted ones arrive, once and in order; of the interrupted ones, none arrives twice."""
    bus = client.bus("votes", int, size=10_000, flush_size=flush_size)
    count = write_interrupted_everywhere(bus)
    assert count > 20
    assert client.flush(10) == 0
    kept = bus.history(10_000)
    assert [n for n in kept if n > 0] == list(range(1, count + 1))
    assert len(kept) == len(set(kept))
    assert bus.channel.unacked == {}
    assert client.status == "live"


@pytest.mark.parametrize("flush_size", [1, 3])
def test_interrupted_write_harms_no_other_write(line: Line, flush_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "RETRY_SECONDS", (0.0, 0.0))
    check_interrupted_writes(line.client(), flush_size)


def test_interrupted_assignment_leaves_the_state_usable(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "RETRY_SECONDS", (0.0, 0.0))
    state = line.client().state("dash")
    other = line.client("bob", "k2").state("dash")
    for busy in (False, True):
        interrupted, at = True, 0
        while interrupted:
            at += 1
            if busy:
                state["speed"] = 0.5
            try:
                with Interrupt(at):
                    state["speed"] = -at
            except KeyboardInterrupt:
                pass
            else:
                interrupted = False
            state["speed"] = at
            state.flush(10)
            assert state["speed"] == at
            assert other.replace("speed", at, "seen", timeout=10)
            eventually(state, lambda: state["speed"] == "seen")
            assert state.replace("speed", "seen", 0, timeout=10)
        assert at > 10
    assert (state._unanswered, state._waiting) == (set(), {})
