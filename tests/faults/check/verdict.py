"""The verdict: every record, held against the laws."""

from __future__ import annotations

from typing import Any

from .histories import History, Seen, entries_of, histories_of, seen_of
from .records import Reader, World, Write
from .table import Clock, Table

MEMORY_BYTES = 600 << 20
"""What a server may have in memory, whatever happens: it has about 90 MB when it has just begun."""


def judge(world: World, table: Table | None = None) -> Table:
    """Check one run, and add what comes of it to ``table``."""
    table = table or Table()
    Verdict(world, table.add(world.faults)).judge()
    return table


class Verdict:
    """One run."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.world = world
        self.clock = clock
        self.begin = min([write.t for write in world.writes.values()], default=0.0)
        self.histories = histories_of(world, self.begin)
        self.by_id = {who.id: who for who in world.who.values() if who.id}
        self.moved: dict[str, list[float]] = {  # when each bus began another history
            bus: [history.begin for history in found[1:]] for bus, found in self.histories.items()
        }

    def judge(self) -> None:
        for found in self.histories.values():
            for i, history in enumerate(found):
                self.judge_history(history, found[:i])
        for write in self.world.writes.values():
            self.judge_answers(write)
        readers = [reader for who in self.world.who.values() for reader in who.readers.values()]
        for reader in readers:
            Reading(self, reader).judge()
        for who in self.world.who.values():
            for line in who.errors:
                self.clock.violate(9, who.name, line["t"], f"ended unexpectedly: {line['text']}")
        for line in self.world.sizes:
            self.clock.observe([8], "", line["t"])
            if line["bytes"] > MEMORY_BYTES:
                self.clock.violate(8, "", line["t"], f"the server holds {line['bytes'] >> 20} MB")

    # --- histories --------------------------------------------------------------------------------------------------

    def judge_history(self, history: History, earlier: list[History]) -> None:
        """Law 3: what a history begins with is of an earlier one; what was kept is kept. Laws 2 and 5: its order."""
        if history.base and not any(self.is_part(history.base, other) for other in earlier):
            self.clock.violate(3, "", history.begin, f"{history.bus} begins with messages that it never had")
        whole = {} if history.resumes is None else earlier[history.resumes].entries
        if whole and earlier[history.resumes or 0].complete and history.base.keys() != whole.keys():
            lost = sorted(whole.keys() ^ history.base.keys())
            self.clock.violate(3, "", history.begin, f"{history.bus} goes on without what it had: {lost[:5]} …")
        if not history.complete:
            return
        for offset, seen in history.base.items():
            if offset not in history.entries or not history.entries[offset].same(seen):
                self.clock.violate(3, "", history.end, f"{history.bus} has lost offset {offset}, which was in its file")
        offsets = [line["o"] for line in history.raw]
        if offsets != sorted(set(offsets)):
            self.clock.violate(2, "", history.end, f"the log of {history.bus} is not in the order of its offsets")
        last: dict[str, int] = {}
        for line in history.raw:
            seen = seen_of(line)
            self.judge_message(line, history.bus, "the log", history.end)
            if seen.deleted:
                continue
            before = last.get(seen.writer, 0)
            self.clock.observe([2, 5], seen.writer, history.end)
            if seen.n == before:
                self.clock.violate(5, seen.writer, history.end, f"write {seen.n} is in the log of {history.bus} twice")
            elif seen.n < before:
                law = (
                    5
                    if any(
                        other.n == seen.n and other.writer == seen.writer
                        for o, other in history.entries.items()
                        if o < line["o"]
                    )
                    else 2
                )
                text = "is in the log twice" if law == 5 else f"comes after {before}"
                self.clock.violate(law, seen.writer, history.end, f"write {seen.n} to {history.bus} {text}")
            last[seen.writer] = max(before, seen.n)

    @staticmethod
    def is_part(base: dict[int, Seen], other: History) -> bool:
        return all(offset in other.entries and other.entries[offset].same(seen) for offset, seen in base.items()) or (
            not other.complete and other.agrees(list(base.items()))
        )

    # --- messages, wherever they are seen ---------------------------------------------------------------------------

    def judge_message(self, line: dict[str, Any], bus: str, where: str, t: float) -> None:
        """Law 6: who wrote it, and that it was written so. Law 7: on this bus. Law 5: it was not refused."""
        seen = seen_of(line)
        id_, kind, user, *_ = line["s"]
        if seen.deleted:
            who = self.by_id.get(id_)
            if who is None or (who.kind, who.user) != (kind, user):
                self.clock.violate(6, where, t, f"{bus} {line['o']}: a removal by {line['s']}, whom nobody knows")
            return
        who, write = self.world.who.get(seen.writer), self.world.writes.get((seen.writer, seen.n))
        if write is None and who is not None and who.killed and who.kind == "page":
            return  # a page that was reloaded had not told all that it wrote
        if who is None or write is None:
            self.clock.violate(3, where, t, f"{bus} {line['o']}: {line['v']} was never written")
            return
        if (kind, user) != (who.kind, who.user) or (who.id and id_ != who.id):
            self.clock.violate(
                6, where, t, f"{bus} {line['o']}: written by {who.kind} {who.user} {who.id}, stamped {line['s']}"
            )
        if write.bus != bus:
            self.clock.violate(7, where, t, f"{line['v']} was written to {write.bus} and is on {bus}")
        if write.refused and not self.ended_before_refusal(write):
            self.clock.violate(
                5, where, t, f"{bus} {line['o']}: write {seen.n} of {seen.writer} was refused, and is there"
            )
        mark = self.world.buses[bus].mark
        if mark and line["v"][-1] != mark:
            self.clock.violate(7, where, t, f"{bus} {line['o']} did not pass the filter: {line['v']}")

    def ended_before_refusal(self, write: Write) -> bool:
        """Whether a history ended between a write and its refusal: it may have been accepted in that one."""
        refused_at = next(answer["t"] for answer in write.answers if answer["is"] == "refused")
        return any(write.t <= moment <= refused_at for moment in self.moved[write.bus])

    # --- answers ----------------------------------------------------------------------------------------------------

    def judge_answers(self, write: Write) -> None:
        """Law 5: one answer. Law 3: what was accepted is kept, at that offset."""
        who = self.world.who[write.writer]
        if len(write.answers) > 1:
            told = ", ".join(answer["is"] for answer in write.answers)
            self.clock.violate(
                5, who.name, write.t, f"write {write.n} to {write.bus} has {len(write.answers)} answers: {told}"
            )
        if not write.answers:
            if not who.killed:
                self.clock.violate(5, who.name, write.t, f"write {write.n} to {write.bus} has no answer")
            return
        answer = write.answers[0]
        self.clock.observe([5], who.name, answer["t"])
        if answer["is"] != "ack":
            return
        self.clock.observe([3], who.name, answer["t"])
        mine = Seen(write.writer, write.n, "", write.key, write.deleted)
        offset = answer["offset"]
        possible = [h for h in self.histories[write.bus] if h.begin <= answer["t"] and h.end >= write.t]
        for history in possible:
            known = history.entries.get(offset)
            if known is not None and known.same(mine):
                return
        free = [history for history in possible if not history.complete and offset not in history.entries]
        if free:
            if len(possible) == 1:  # else it is not known of which history it is
                free[0].entries[offset] = mine
            return
        there = [history.entries.get(offset) for history in possible]
        self.clock.violate(
            3, who.name, answer["t"], f"write {write.n} to {write.bus} was accepted at {offset}, where there is {there}"
        )


class Reading:
    """One reader's way."""

    def __init__(self, verdict: Verdict, reader: Reader) -> None:
        self.verdict = verdict
        self.clock = verdict.clock
        self.reader = reader
        self.who = reader.who
        self.facts = verdict.world.buses[reader.bus]
        self.histories = verdict.histories[reader.bus]
        self.at = 0  # the history that it is in

    def judge(self) -> None:
        part: list[dict[str, Any]] = []
        lag: dict[str, Any] | None = None
        before: int | None = 0 if self.reader.since == "start" and self.facts.complete else None
        end: dict[str, Any] | None = None
        for event in self.reader.events:
            match event["is"]:
                case "heard":
                    self.judge_heard(event, part)
                    part.append(event)
                case "lagged":
                    before = self.judge_part(part, before, lag)
                    part, lag = [], event
                case _:
                    end = event
                    break
        before = self.judge_part(part, before, lag)
        self.judge_end(end, before)

    def judge_heard(self, event: dict[str, Any], part: list[dict[str, Any]]) -> None:
        name, bus, offset = self.who.name, self.reader.bus, event["o"]
        self.clock.observe([1, 2, 4, 6, 7], name, event["t"])
        if part and offset == part[-1]["o"]:
            self.clock.violate(1, name, event["t"], f"{bus} {offset} was heard twice")
        elif part and offset < part[-1]["o"]:
            self.clock.violate(2, name, event["t"], f"{bus} {offset} was heard after {part[-1]['o']}")
        if self.facts.users is not None and self.who.user not in self.facts.users:
            self.clock.violate(7, name, event["t"], f"{self.who.user} heard {bus} {offset}")
        write = self.verdict.world.writes.get((seen_of(event).writer, seen_of(event).n))
        if write is not None and not event.get("deleted") and not write.visible_to(name, self.who.user):
            self.clock.violate(7, name, event["t"], f"{bus} {offset} was for {write.to}, and not for {self.who.user}")
        self.verdict.judge_message(event, bus, name, event["t"])

    def judge_part(self, part: list[dict[str, Any]], before: int | None, lag: dict[str, Any] | None) -> int | None:
        """Law 3: what was heard between two lags is of one history, and in its log. Law 4: and it is whole."""
        if not part:
            return before if lag is None else lag["after"]
        found = list(entries_of(part).items())
        old = self.at
        possible = [i for i in range(self.at, len(self.histories)) if self.histories[i].begin <= part[-1]["t"]]
        agreeing = [i for i in possible if self.histories[i].agrees(found)]
        if not agreeing:
            self.clock.violate(
                3, self.who.name, part[-1]["t"], f"{self.reader.bus}: {self.what(part)} is of no history"
            )
            return part[-1]["o"]
        self.at = max(agreeing, key=lambda i: (self.histories[i].overlap(found), i))
        history = self.histories[self.at]
        if len(agreeing) > 1 and not history.overlap(found):
            return part[-1]["o"]  # nobody else has seen any of it: it is not known of which history it is
        for (offset, seen), event in zip(found, part, strict=False):
            if offset in history.entries:
                continue
            if history.complete:
                self.clock.violate(
                    3, self.who.name, event["t"], f"{self.reader.bus} {offset} was heard, and is not in the log"
                )
            history.entries[offset] = seen
        if lag is not None:
            before = self.judge_lag(lag, before, part, moved=self.at != old)
        for event in part:
            if before is not None:
                self.judge_gap(history, before, event["o"], event["t"])
            before = event["o"]
        return before

    def judge_lag(
        self, lag: dict[str, Any], before: int | None, part: list[dict[str, Any]], *, moved: bool
    ) -> int | None:
        """A reader that was told of a lag goes on after the offset that it was told, and has missed no more than that."""
        name, bus, after = self.who.name, self.reader.bus, lag["after"]
        self.clock.observe([4], name, lag["t"])
        if part[0]["o"] <= after:
            self.clock.violate(
                4, name, lag["t"], f"{bus} {part[0]['o']} was heard, though it was to go on after {after}"
            )
        if self.facts.retain != "log":
            return None  # the whole state follows
        if not moved and before is not None and after < before and not self.may_begin_anew(lag["t"]):
            self.clock.violate(
                1, name, lag["t"], f"{bus} began anew at {after} after {before}, and its history did not"
            )
        history = self.histories[self.at]
        if lag["skipped"] is not None and before is not None and not moved:
            missed = sum(self.wants(history, offset) for offset in history.entries if before < offset <= after)
            if missed > lag["skipped"]:
                self.clock.violate(
                    4, name, lag["t"], f"{bus}: missed {missed} after {before}, was told {lag['skipped']}"
                )
        return after if self.facts.complete or after > 0 else None

    def may_begin_anew(self, t: float) -> bool:
        return any(moment <= t for moment in self.verdict.moved[self.reader.bus])

    def judge_gap(self, history: History, before: int, offset: int, t: float) -> None:
        if offset - before < 2:
            return
        for missing in range(before + 1, offset):
            if missing in history.entries and self.wants(history, missing):
                self.clock.violate(
                    4, self.who.name, t, f"{self.reader.bus}: {missing} is missing between {before} and {offset}"
                )
                return

    def wants(self, history: History, offset: int) -> bool:
        """Whether the message at an offset is for this reader, and nothing that replaces it is there."""
        seen = history.entries[offset]
        if self.facts.retain == "latest":
            return offset == max(history.entries)
        if self.facts.retain == "keys":
            return not any(o > offset and other.key == seen.key for o, other in history.entries.items())
        write = self.verdict.world.writes.get((seen.writer, seen.n))
        return write is None or write.visible_to(self.who.name, self.who.user)

    def judge_end(self, end: dict[str, Any] | None, last: int | None) -> None:
        """Laws 1 and 9: at the end a reader has heard everything, or was told why not."""
        name, bus = self.who.name, self.reader.bus
        if end is None:
            if not self.who.killed:
                self.clock.violate(9, name, self.reader.t, f"a reader of {bus} went quiet without a word")
            return
        self.clock.observe([9], name, end["t"])
        if end["is"] != "end":
            return  # it was closed with a reason, or has left
        if not end["caught_up"]:
            self.clock.violate(9, name, end["t"], f"a reader of {bus} is not caught up, and was not told why: {end}")
            return
        if last is None:
            return
        self.clock.observe([1], name, end["t"])
        history = self.histories[-1]
        missing = [o for o in history.entries if o > last and self.wants(history, o)]
        if missing and history.agrees([]):
            self.clock.violate(1, name, end["t"], f"a reader of {bus} ends at {last} and never heard {min(missing)}")

    @staticmethod
    def what(part: list[dict[str, Any]]) -> str:
        return f"{part[0]['o']} … {part[-1]['o']} ({len(part)} messages)"
