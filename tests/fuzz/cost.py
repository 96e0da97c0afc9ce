"""What a piece of work costs: steps and bytes, which are the same on every machine. Time is no verdict.

A *step* is a call, of a Python or a built-in function. A loop without calls takes none; what such loops build is bytes.
"""

from __future__ import annotations

import contextlib
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


class TooExpensive(AssertionError):
    """A piece of work costs more than its input pays for."""


@dataclass
class Cost:
    """What was spent so far; final at the end of `measured`'s block."""

    steps: int = 0
    peak_bytes: int = 0
    kept_bytes: int = 0


@contextlib.contextmanager
def measured() -> Iterator[Cost]:
    """Count the steps and bytes of a block."""
    cost = Cost()
    steps = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal steps
        steps += event in ("call", "c_call")

    was_tracing = tracemalloc.is_tracing()
    before = sys.getprofile()
    if not was_tracing:
        tracemalloc.start()
    tracemalloc.reset_peak()
    start, _ = tracemalloc.get_traced_memory()
    sys.setprofile(count)
    try:
        yield cost
    finally:
        sys.setprofile(before)
        now, peak = tracemalloc.get_traced_memory()
        cost.steps, cost.peak_bytes, cost.kept_bytes = steps, peak - start, now - start
        if not was_tracing:
            tracemalloc.stop()


def pays(size: int, work: Callable[[], Any], *, steps: int, bytes_: int, base: int = 1) -> Any:
    """Do ``work``, whose input has ``size`` bytes, and return what it returns.

    Args:
        size: Bytes of input.
        work: What is done with it. What it raises is raised here.
        steps, bytes_: What each byte of input pays for.
        base: How many kilobytes of input every input counts as having on top.

    Raises:
        TooExpensive: It cost more.
    """
    with measured() as cost:
        result = work()
    paid = size + 1024 * base
    if cost.steps > steps * paid or cost.peak_bytes > bytes_ * paid:
        raise TooExpensive(f"{size} bytes of input cost {cost.steps} steps and {cost.peak_bytes} bytes at the peak")
    return result
