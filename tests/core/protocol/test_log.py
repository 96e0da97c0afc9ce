"""Logs: retention, lag and resume."""

from __future__ import annotations

import pytest

from ebus_jupyter.core.protocol.log import Log
from ebus_jupyter.errors import Lagged


def filled(values: str, **how: object) -> Log[str]:
    log: Log[str] = Log(**how)  # type: ignore[arg-type]
    for offset, value in enumerate(values, start=1):
        log.append(offset, value)
    return log


def keyed(*writes: str, size: int = 2) -> Log[str]:
    """A log of writes such as "a1" (key a) and "-a" (a is removed)."""
    log: Log[str] = Log(retain="keys", size=size)
    for offset, write in enumerate(writes, start=1):
        log.append(offset, write, key=write.strip("-")[0], deleted=write[0] == "-")
    return log


def test_slow_reader_lags_once_then_resumes():
    log = filled("abc", size=2)
    with pytest.raises(Lagged) as lag:
        log.read(after=0)
    assert lag.value.skipped == 1
    assert log.read(after=lag.value.resume_after) == ["b", "c"]


def test_reader_at_the_end_reads_nothing():
    assert filled("abc").read(after=3) == []
    assert filled("abc").read(after=99) == []


def test_offsets_may_skip_but_never_decrease():
    log: Log[str] = Log()
    log.append(5, "a")
    log.append(9, "b")
    assert log.read(after=5) == log.read(after=8) == ["b"]
    with pytest.raises(ValueError, match="does not follow"):
        log.append(9, "again")


def test_max_bytes_drops_all_but_the_newest_entry():
    log: Log[str] = Log(max_bytes=10)
    for offset, size in enumerate([4, 4, 4, 50], start=1):
        log.append(offset, str(offset), size=size)
    assert list(log) == ["4"]
    assert log.floor == 3


def test_read_returns_what_fits_and_at_least_one_entry():
    log: Log[str] = Log()
    for offset in (1, 2, 3):
        log.append(offset, str(offset), size=10)
    assert log.read(after=0, max_bytes=20) == ["1", "2"]
    assert log.read(after=0, max_bytes=1) == ["1"]


def test_latest_keeps_one_entry_and_nobody_lags():
    log = filled("abc", retain="latest")
    assert (len(log), log.read(after=0), log.read(after=2), log.floor) == (1, ["c"], ["c"], 0)


def test_keys_keeps_the_last_entry_of_each_key():
    log = keyed("a1", "b1", "a2")
    assert list(log) == ["b1", "a2"]
    assert (log.offset_of("a"), log.offset_of("z")) == (3, 0)


def test_removed_key_leaves_a_mark_for_later_readers():
    log = keyed("a1", "b1", "-a")
    assert log.read(after=2) == ["-a"]
    assert log.offset_of("a") == 0


def test_full_for_reports_a_key_too_many():
    log = keyed("a1", "b1")
    assert log.full_for("c")
    assert not log.full_for("a")
    assert keyed("a1").full_for("c", others=1)
    assert not keyed("a1", "b1", "-a").full_for("c")


def test_key_may_always_become_smaller():
    log: Log[str] = Log(retain="keys", size=9, max_bytes=10)
    log.append(1, "big", key="a", size=10)
    assert log.full_for("b", 1)
    assert not log.full_for("a", 10)
    assert log.full_for("a", 11)


def test_reader_that_missed_a_removal_rereads_the_whole_state():
    log = keyed("a1", "b1", "-a", "-b", "c1", "-c")  # only two marks are kept
    with pytest.raises(Lagged) as lag:
        log.read(after=2)
    assert lag.value.resume_after == 0
    assert log.read(after=0) == ["-b", "-c"]


def test_snapshot_is_read_in_portions_below_the_floor():
    log = keyed("a1", "x", "-x", "y", "-y", "z", "-z", "b1")
    assert log.floor == 3
    assert log.read(after=1, known=log.floor) == ["-y", "-z", "b1"]
    with pytest.raises(Lagged):
        log.read(after=1, known=log.floor - 1)


@pytest.mark.parametrize("retain", ["log", "latest", "keys"])
def test_memory_stays_bounded_over_many_appends(retain):
    log: Log[int] = Log(retain=retain, size=3)
    for offset in range(1, 2001):
        log.append(offset, offset, key=str(offset % 3))
    assert log.read(after=max(log.floor, log.last - 3))[-1] == 2000
    assert len(log._items) < 200


def test_before_last_finds_the_last_n_entries():
    log = filled("abcde", size=4)
    assert log.read(after=log.before_last(2)) == ["d", "e"]
    assert log.read(after=log.before_last(99)) == ["b", "c", "d", "e"]


def test_at_returns_the_entry_of_an_offset():
    log = filled("abcde", size=2)
    assert (log.at(4), log.at(3), log.at(99), log.at(-1)) == ("d", None, None, None)


def test_restart_begins_another_history_after_its_floor():
    log = filled("abc")
    log.restart(10)
    assert (list(log), log.last, log.floor) == ([], 10, 10)
    log.append(11, "new")
    assert log.read(after=10) == ["new"]
