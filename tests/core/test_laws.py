"""The nine laws, under every kind of fault in any order.

One bus with several participants; a broker that is killed now and then; a bus that is deleted while it is in use;
connections that break at the worst moment, after a write was accepted and before its writer has the acknowledgement. The
same state machine runs with each retention, with a filter in the owner's kernel, and over each backend: in memory, and in a
file that the next server finds as the killed one left it. The laws of the design are checked here
(the machine is in `laws`):

| law | check |
| --- | --- |
| 1. Everyone hears | `law_1_everyone_hears`, at the end: every reader has received all messages, once |
| 2. One order | `law_2_one_order`, always; at the end, all participants show the same state |
| 3. Log before fan-out | `law_3_received_messages_are_kept`, after each kill; `Listener`: a received message is in the log |
| 4. No silent gap | `Listener.check_gap`, for each message and at the end; a snapshot is whole (`law_1_everyone_hears`) |
| 5. Accepted or refused, once | `law_5_accepted_or_refused_once`, at the end; `Player`: no write is answered twice |
| 6. Identity is stamped | `law_6_identity_is_stamped`, always |
| 7. Scopes hold | `mallory_sends_frames_for_a_bus`: an outsider learns nothing (`broker/test_scopes.py` has the rest) |
| 8. Everything is bounded | `law_8_everything_is_bounded`, always |
| 9. Closed says so | `law_1_everyone_hears`: at the end each stream is caught up, or has ended with an error |
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from ebus_jupyter.backends import sqlite_answers, sqlite_log
from ebus_jupyter.core.broker import answers, bus_log
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.errors import EbusError, FilterUnavailable

from .laws import LIMITS, Laws
from .logs import FileLogs


@pytest.fixture(autouse=True, scope="module")
def small_steps() -> Iterator[None]:
    """A few writes suffice to have answers packed, and folded into the file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "RUNS", 2)
        patch.setattr(bus_log, "RECENT", (2, 1000))
        patch.setattr(sqlite_log, "RECENT", (2, 1000))
        patch.setattr(sqlite_answers, "RUNS", 2)
        patch.setattr(sqlite_log, "FOLD", 3)
        patch.setattr(sqlite_log, "PRUNE", 2)
        yield


def tenfold(value: Any, sender: Participant) -> Any:
    return None if value is None else value * 10  # None: a key is removed


class FilteredLaws(Laws):
    """The same laws on a bus that its owner's kernel filters, slowly and out of order."""

    retentions = ("log", "keys")
    filtered = True

    @rule(data=st.data())
    def judge(self, data: st.DataObject) -> None:
        assert self.owner is not None
        if self.owner.asked:
            self.owner.filter = tenfold
            self.owner.judge(data.draw(st.integers(0, len(self.owner.asked) - 1), "which"))
            self.owner.filter = None
            self.owner.say()

    @rule()
    def lose_the_owner(self) -> None:
        assert self.owner is not None
        self.owner.lose()
        self.owner.asked.clear()

    @rule()
    def reconnect_the_owner(self) -> None:
        assert self.owner is not None
        self.owner.connect()
        self.owner.asked.clear()
        self.play.settle()

    @rule()
    def let_the_filter_time_out(self) -> None:
        self.play.pass_time(LIMITS.filter_seconds)

    def settle(self) -> None:
        assert self.owner is not None
        self.play.settle()
        self.owner.filter = tenfold
        while self.owner.asked:
            self.owner.judge()
            self.play.settle()

    def filtered_value(self, value: Any) -> Any:
        return value * 10

    def refusals(self) -> tuple[type[EbusError], ...]:
        return (*super().refusals(), FilterUnavailable)


class LawsInAFile(Laws):
    logs = FileLogs


class FilteredLawsInAFile(FilteredLaws):
    logs = FileLogs


TestLaws = Laws.TestCase
TestFilteredLaws = FilteredLaws.TestCase
TestLawsInAFile = LawsInAFile.TestCase
TestFilteredLawsInAFile = FilteredLawsInAFile.TestCase
TestLawsInAFile.settings = settings(max_examples=settings.default.max_examples // 2)
TestFilteredLawsInAFile.settings = settings(max_examples=settings.default.max_examples // 2)
