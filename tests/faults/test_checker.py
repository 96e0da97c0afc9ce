"""The checker is proved: it passes a clean record, and finds each violation that is planted into one."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .check.records import Recorder, read_file, world_of
from .check.table import Table
from .check.verdict import MEMORY_BYTES, judge

Files = dict[str, list[dict[str, Any]]]
IDS = {"ann": "id-ann", "bob": "id-bob", "cat": "id-cat"}


class Clean:
    """The records of a run in which everything is as it should be.

    Ann writes 1 … 20 to "log" and to "own" (Ann's alone); Bob and Cat write to "log" and "state". The server is killed, and
    later restarted with an older copy of its file, in which messages 1 to 15 of "log" are.
    """

    def __init__(self) -> None:
        self.t = 10.0
        self.files: Files = {name: [] for name in ("injector", *IDS)}
        self.offset: dict[str, int] = {}
        self.entries: dict[str, list[dict[str, Any]]] = {"log": [], "own": [], "state": []}
        self.n = dict.fromkeys(IDS, 0)
        for bus, facts in {
            "log": {"complete": True},
            "own": {"complete": True, "users": ["ann"]},
            "state": {"retain": "keys"},
        }.items():
            self.say("injector", "bus", name=bus, **facts)
        for name, id_ in IDS.items():
            self.say(name, "me", name=name, user=name, kind="client", id=id_)
            self.say(name, "reader", r=1, bus="log", since="start")
            self.say(name, "reader", r=2, bus="state", since="start")
        self.say("ann", "reader", r=3, bus="own", since="start")
        for _ in range(10):
            self.round()
        self.fault("server killed")
        for _ in range(5):
            self.round()
        self.restored()
        for _ in range(5):
            self.round()
        self.history("end")
        for name in IDS:
            for r in (1, 2, 3) if name == "ann" else (1, 2):
                self.say(name, "end", r=r, caught_up=True)

    def say(self, who: str, is_: str, /, **facts: Any) -> None:
        self.t += 0.001
        self.files[who].append({"is": is_, "t": self.t, **facts})

    def fault(self, kind: str) -> None:
        self.say("injector", "fault", kind=kind, until=self.t + 0.5)
        self.t += 1.0
        self.say("injector", "size", bytes=100 << 20)

    def history(self, phase: str) -> None:
        for bus, entries in self.entries.items():
            self.say("injector", "history", bus=bus, phase=phase, entries=copy.deepcopy(entries))

    def restored(self) -> None:
        self.history("end")
        for bus, keeps in {"log": 15, "own": 5, "state": 10}.items():
            self.entries[bus] = [line for line in self.entries[bus] if line["o"] <= keeps]
            self.offset[bus] = keeps
        self.history("begin")
        self.fault("older copy of the file")
        for name in IDS:
            for r, bus in ((1, "log"), (2, "state"), (3, "own")):
                if r != 3 or name == "ann":
                    self.say(name, "lagged", r=r, skipped=None, after=0)
                    for line in self.entries[bus]:
                        if bus != "log" or line["v"][0] != "bob" or name in ("ann", "bob"):  # Bob's are for Ann alone
                            self.say(name, "heard", r=r, **line)

    def round(self) -> None:
        self.write("ann", "log")
        self.write("bob", "log", to=["ann"])
        self.write("cat", "log")
        self.write("ann", "own", readers={"ann": 3})
        self.write("bob", "state", readers=dict.fromkeys(IDS, 2), key="k1")
        self.write("cat", "state", readers=dict.fromkeys(IDS, 2), key="k2")

    def write(self, who: str, bus: str, *, readers: dict[str, int] | None = None, **how: Any) -> None:
        self.n[who] += 1
        self.say(who, "write", n=self.n[who], bus=bus, **how)
        self.offset[bus] = self.offset.get(bus, 0) + 1
        line = {"o": self.offset[bus], "id": f"{IDS[who]}-{self.n[who]}", "v": [who, self.n[who], ""],
                "s": [IDS[who], "client", who]}  # fmt: skip
        if "key" in how:
            line["key"] = how["key"]
        self.entries[bus].append(line)
        for name, r in (readers or dict.fromkeys(IDS, 1)).items():
            if "to" not in how or name == who or name in how["to"]:
                self.say(name, "heard", r=r, **line)
        self.say(who, "ack", n=self.n[who], offset=line["o"])


def verdict(files: Files) -> Table:
    return judge(world_of(list(copy.deepcopy(files).values())))


def laws(table: Table) -> set[int]:
    return {int(text.split(":")[0].removeprefix("law ")) for text in table.violations}


@pytest.fixture
def clean() -> Files:
    return Clean().files


def heard(files: Files, who: str, r: int = 1) -> list[dict[str, Any]]:
    return [line for line in files[who] if line["is"] == "heard" and line["r"] == r]


def other_line(files: Files, who: str, is_: str, /, **facts: Any) -> dict[str, Any]:
    return next(line for line in files[who] if line["is"] == is_ and all(line.get(k) == v for k, v in facts.items()))


def audits(files: Files, bus: str, phase: str) -> list[dict[str, Any]]:
    return [
        line for line in files["injector"] if line["is"] == "history" and (line["bus"], line["phase"]) == (bus, phase)
    ]


def test_clean_record_passes(clean: Files) -> None:
    table = verdict(clean)
    assert table.violations == []
    assert all(table.total[law] for law in (1, 2, 3, 4, 5, 6, 7, 8, 9)), "each law was looked at"
    assert table.faults == {"server killed": 1, "older copy of the file": 1}
    assert "server killed" in str(table)


# --- law 1: everyone hears, once ----------------------------------------------------------------------------------------


def heard_twice(files: Files) -> None:
    line = heard(files, "cat")[4]
    files["cat"].insert(files["cat"].index(line), dict(line))


def last_message_never_heard(files: Files) -> None:
    files["cat"].remove(heard(files, "cat")[-1])


def begins_anew_without_a_reason(files: Files) -> None:
    line = heard(files, "cat")[8]
    at = files["cat"].index(line)
    files["cat"][at:at] = [
        {"is": "lagged", "t": line["t"], "r": 1, "skipped": None, "after": 0},
        *[{**old, "t": line["t"]} for old in heard(files, "cat")[:8]],
    ]


# --- law 2: one order -------------------------------------------------------------------------------------------------


def heard_in_another_order(files: Files) -> None:
    lines = files["cat"]
    a, b = (lines.index(line) for line in heard(files, "cat")[4:6])
    lines[a], lines[b] = lines[b], lines[a]


def writer_overtakes_itself(files: Files) -> None:
    """Two writes of one writer have changed places, for everybody."""
    first, second = [line["n"] for line in files["ann"] if line["is"] == "write" and line["bus"] == "log"][:2]

    def swap(line: dict[str, Any]) -> None:
        line["v"][1] = {first: second, second: first}.get(line["v"][1], line["v"][1])
        line["id"] = f"{line['s'][0]}-{line['v'][1]}"

    for lines in files.values():
        for line in lines:
            if line["is"] == "heard" and line["v"][0] == "ann":
                swap(line)
            for entry in line.get("entries", ()):
                if entry["v"][0] == "ann":
                    swap(entry)
    acks = [line for line in files["ann"] if line["is"] == "ack" and line["n"] in (first, second)]
    acks[0]["offset"], acks[1]["offset"] = acks[1]["offset"], acks[0]["offset"]


# --- law 3: kept, no offset reused --------------------------------------------------------------------------------------


def acked_write_is_gone(files: Files) -> None:
    del audits(files, "own", "end")[0]["entries"][3]


def acked_at_another_offset(files: Files) -> None:
    other_line(files, "ann", "ack", n=3)["offset"] = 1


def received_message_is_not_kept(files: Files) -> None:
    line = {**heard(files, "cat")[-1], "o": 1000, "id": "id-ann-7", "v": ["ann", 7, ""]}
    files["cat"].insert(files["cat"].index(heard(files, "cat")[-1]) + 1, line)


def two_readers_two_histories(files: Files) -> None:
    """An offset of the state, of which nobody knows all, is another message for Cat than for Ann and Bob."""
    line = heard(files, "cat", 2)[3]
    other = heard(files, "cat", 2)[5]
    line.update(id=other["id"], v=other["v"])


def message_that_nobody_wrote(files: Files) -> None:
    heard(files, "cat")[3]["v"] = ["ann", 999, ""]


def kept_message_lost_in_a_restart(files: Files) -> None:
    end = audits(files, "log", "end")[-1]["entries"]
    end.remove(next(line for line in end if line["o"] == 3))


def history_begins_with_what_never_was(files: Files) -> None:
    audits(files, "log", "begin")[0]["entries"][2].update(id="id-bob-99", v=["bob", 99, ""])


# --- law 4: no silent gap -----------------------------------------------------------------------------------------------


def silent_gap(files: Files) -> None:
    files["cat"].remove(heard(files, "cat")[5])


def silent_gap_at_the_beginning(files: Files) -> None:
    files["cat"].remove(heard(files, "cat")[0])


def lag_that_says_too_little(files: Files) -> None:
    gone = heard(files, "cat")[5:9]
    at = files["cat"].index(gone[0])
    for line in gone:
        files["cat"].remove(line)
    files["cat"].insert(at, {"is": "lagged", "t": gone[0]["t"], "r": 1, "skipped": 1, "after": gone[-1]["o"]})


def gap_after_a_lag(files: Files) -> None:
    gone = heard(files, "cat")[5:9]
    at = files["cat"].index(gone[0])
    for line in gone:
        files["cat"].remove(line)
    files["cat"].insert(at, {"is": "lagged", "t": gone[0]["t"], "r": 1, "skipped": 9, "after": gone[1]["o"]})


def another_history_without_a_word(files: Files) -> None:
    """Cat goes on in the restored history as if it were the old one: it reuses offsets."""
    lag = other_line(files, "cat", "lagged", r=1)
    at = files["cat"].index(lag)
    del files["cat"][at]
    for line in [line for line in heard(files, "cat") if files["cat"].index(line) >= at and line["o"] <= 15]:
        files["cat"].remove(line)


def state_lacks_a_key(files: Files) -> None:
    """The last value of a key is never heard: nothing that came later replaces it."""
    files["cat"].remove(heard(files, "cat", 2)[-1])


# --- law 5: one answer --------------------------------------------------------------------------------------------------


def no_answer(files: Files) -> None:
    files["ann"].remove(other_line(files, "ann", "ack", n=3))


def two_answers(files: Files) -> None:
    line = other_line(files, "ann", "ack", n=3)
    files["ann"].append({**line, "is": "refused", "code": "conflict"})


def refused_write_is_heard(files: Files) -> None:
    line = other_line(files, "ann", "ack", n=3)
    line["is"], line["code"] = "refused", "backend"


def accepted_twice(files: Files) -> None:
    """A write that was sent again is in the log once more, for everybody who is there at the end."""
    end = audits(files, "own", "end")[-1]["entries"]
    again = {**end[2], "o": end[-1]["o"] + 1}
    end.append(again)
    last = heard(files, "ann", 3)[-1]
    files["ann"].insert(files["ann"].index(last) + 1, {**last, **again})


# --- laws 6 to 9 --------------------------------------------------------------------------------------------------------


def another_sender_is_stamped(files: Files) -> None:
    heard(files, "cat")[3]["s"] = ["id-ann", "client", "bob"]


def another_kind_is_stamped(files: Files) -> None:
    heard(files, "cat")[3]["s"] = ["id-ann", "kernel", "ann"]


def stranger_hears_a_users_bus(files: Files) -> None:
    files["cat"].append({"is": "reader", "t": 11.0, "r": 9, "bus": "own", "since": None})
    files["cat"] += [{**line, "r": 9} for line in heard(files, "ann", 3)[:3]]
    files["cat"].append({"is": "left", "t": 30.0, "r": 9})


def private_message_is_heard_by_all(files: Files) -> None:
    private = next(line for line in heard(files, "ann") if line["v"][0] == "bob")
    after = next(line for line in heard(files, "cat") if line["o"] > private["o"])
    files["cat"].insert(files["cat"].index(after), dict(private))


def message_on_another_bus(files: Files) -> None:
    line = heard(files, "cat", 2)[3]
    stranger = heard(files, "cat", 1)[3]
    for name in IDS:
        for found in heard(files, name, 2):
            if found["o"] == line["o"]:
                found.update(v=stranger["v"], id=stranger["id"], s=stranger["s"])


def server_swells(files: Files) -> None:
    other_line(files, "injector", "size")["bytes"] = MEMORY_BYTES + 1


def reader_goes_quiet(files: Files) -> None:
    files["cat"] = [line for line in files["cat"] if not (line["is"] == "end" and line["r"] == 1)]


def reader_is_not_caught_up(files: Files) -> None:
    other_line(files, "cat", "end", r=1)["caught_up"] = False


def participant_ends_by_itself(files: Files) -> None:
    files["cat"].append({"is": "error", "t": 20.0, "text": "a thread has ended"})


PLANTED: list[tuple[int, Callable[[Files], None]]] = [
    (1, heard_twice),
    (1, last_message_never_heard),
    (1, begins_anew_without_a_reason),
    (2, heard_in_another_order),
    (2, writer_overtakes_itself),
    (3, acked_write_is_gone),
    (3, acked_at_another_offset),
    (3, received_message_is_not_kept),
    (3, two_readers_two_histories),
    (3, message_that_nobody_wrote),
    (3, kept_message_lost_in_a_restart),
    (3, history_begins_with_what_never_was),
    (3, another_history_without_a_word),
    (4, silent_gap),
    (4, silent_gap_at_the_beginning),
    (4, lag_that_says_too_little),
    (4, gap_after_a_lag),
    (1, state_lacks_a_key),
    (5, no_answer),
    (5, two_answers),
    (5, refused_write_is_heard),
    (5, accepted_twice),
    (6, another_sender_is_stamped),
    (6, another_kind_is_stamped),
    (7, stranger_hears_a_users_bus),
    (7, private_message_is_heard_by_all),
    (7, message_on_another_bus),
    (8, server_swells),
    (9, reader_goes_quiet),
    (9, reader_is_not_caught_up),
    (9, participant_ends_by_itself),
]


@pytest.mark.parametrize(("law", "plant"), PLANTED, ids=[plant.__name__ for _, plant in PLANTED])
def test_planted_violation_is_found(clean: Files, law: int, plant: Callable[[Files], None]) -> None:
    plant(clean)
    assert law in laws(verdict(clean))


def test_killed_participant_may_leave_writes_unanswered_and_readers_open(clean: Files) -> None:
    clean["injector"].append({"is": "killed", "t": 40.0, "name": "cat"})
    clean["cat"] = clean["cat"][:-3]
    assert verdict(clean).violations == []


def test_violation_is_counted_under_the_fault_that_was_at_work(clean: Files) -> None:
    fault = other_line(clean, "injector", "fault", kind="server killed")
    line = next(line for line in heard(clean, "cat") if line["t"] > fault["t"])
    clean["cat"].insert(clean["cat"].index(line), dict(line))
    table = verdict(clean)
    assert table.violated["server killed", 1] == 1
    assert table.violated["older copy of the file", 1] == 0
    assert " !1" in str(table)


def test_write_may_be_refused_in_the_history_after_the_one_that_has_it(clean: Files) -> None:
    """The server accepted it, its answer was lost, and the writer asked again when there was an older copy of the file."""
    restored = audits(clean, "log", "begin")[0]["t"]
    ns = [line["n"] for line in clean["ann"] if line["is"] == "write" and line["bus"] == "log" and line["t"] < restored]
    line = other_line(clean, "ann", "ack", n=ns[-1])
    line.update({"is": "refused", "code": "backend", "t": restored + 0.5})
    assert laws(verdict(clean)) == set()
    line["t"] = restored - 0.5
    assert laws(verdict(clean)) == {5}


def test_record_that_a_kill_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    record = Recorder(tmp_path / "a.jsonl")
    record("me", name="ann", user="ann", kind="client")
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"is":"wri')
    assert [line["is"] for line in read_file(tmp_path / "a.jsonl")] == ["me"]


def test_checker_shares_no_code_with_the_product() -> None:
    for path in [*(Path(__file__).parent / "check").glob("*.py"), Path(__file__).parent / "raw.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                assert node.level < 2, f"{path} imports from outside of its folder"
            assert not any(name.startswith("ebus_jupyter") for name in names), path
