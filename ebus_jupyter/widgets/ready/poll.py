"""A poll with live bars. Each person has one vote: the server stamps the voter, and the last vote counts.

    lunch = ebus.widgets.Poll("lunch", question="Where to?", options=["Thai", "Pizza"])
    lunch.results                        # {"Thai": 2, "Pizza": 1}
    lunch.end()

Questions, votes and the end of the poll are entries of one log. Every reader of the log computes the same result, by the
rules of `Tally`, which the page side (``js/src/widgets/ready/poll.ts``) implements too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import traitlets

from ebus_jupyter.client.waiting import NOT_YET
from ebus_jupyter.core.protocol.message import Message
from ebus_jupyter.errors import Lagged

from .view import BusView, own_bus

KEPT = 10_000
"""Entries that a poll keeps. When more are written, the oldest are dropped."""

Words = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class Ask(msgspec.Struct, forbid_unknown_fields=True, tag="ask"):
    """A question. It discards all earlier votes."""

    question: Words
    options: Annotated[list[Words], msgspec.Meta(min_length=2, max_length=50)]


class Vote(msgspec.Struct, forbid_unknown_fields=True, tag="vote"):
    """The sender's vote. None withdraws it."""

    choice: Words | None


class Close(msgspec.Struct, forbid_unknown_fields=True, tag="close"):
    """Closes or reopens the poll."""

    closed: bool


class Tally:
    """The result of a poll.

    - The sender of the first question owns the poll. Only the owner can ask again, close and reopen.
    - A vote counts if the poll is open and has that option. Each person's last vote counts.
    """

    def __init__(self) -> None:
        self.owner: str | None = None
        self.question = ""
        self.options: list[str] = []
        self.closed = False
        self.votes: dict[str, str] = {}

    def count(self, message: Message[Ask | Vote | Close]) -> None:
        """Add the next message of the log."""
        user = message.sender.user
        match message.value:
            case Ask(question, options) if self.owner in (None, user):
                self.owner, self.question, self.options = user, question, options
                self.closed, self.votes = False, {}
            case Close(closed) if self.owner == user:
                self.closed = closed
            case Vote(None) if not self.closed:
                self.votes.pop(user, None)
            case Vote(str(choice)) if not self.closed and choice in self.options:
                self.votes[user] = choice


class Poll(BusView):
    """A poll, shared by everyone in ``scope`` who opens the same ``name``.

    Args:
        name: The poll's name; its bus is called ``poll:NAME``.
        question: The question. Default: join the existing poll. In a poll that another user owns, it has no effect.
        options: The answers to choose from, 2 to 50.
        scope: "server" (default), "user" or "kernel".
        title: The widget's heading. Default: the name.
    """

    _face = traitlets.Unicode("poll").tag(sync=True)

    def __init__(
        self,
        name: str,
        *,
        question: str | None = None,
        options: Sequence[str] = (),
        scope: str = "server",
        title: str | None = None,
    ) -> None:
        super().__init__(own_bus(f"poll:{name}", Ask | Vote | Close, scope=scope, size=KEPT), title or name)
        self._tally = Tally()
        self._log = self.bus.messages(since="start")
        if question is not None:
            self.ask(question, options)

    def ask(self, question: str, options: Sequence[str]) -> None:
        """Ask a question. Asking the current question again keeps the votes, so a cell can be run again."""
        tally = self._current_tally()
        if tally.owner is None or (tally.question, tally.options) != (question, list(options)):
            self._write(Ask(question, list(options)))

    def vote(self, choice: str | None) -> None:
        """Vote as the user of this kernel. None withdraws the vote."""
        self._write(Vote(choice))

    def end(self, closed: bool = True) -> None:
        """Close the poll, or reopen it with ``closed=False``. Without effect unless this user owns the poll."""
        self._write(Close(closed))

    @property
    def results(self) -> dict[str, int]:
        """The number of votes for each option."""
        tally = self._current_tally()
        chosen = list(tally.votes.values())
        return {option: chosen.count(option) for option in tally.options}

    @property
    def votes(self) -> dict[str, str]:
        """Each user's choice, by username."""
        return dict(self._current_tally().votes)

    @property
    def question(self) -> str:
        """The current question; "" if there is none."""
        return self._current_tally().question

    @property
    def closed(self) -> bool:
        """True if the poll is closed."""
        return self._current_tally().closed

    def _write(self, entry: Ask | Vote | Close) -> None:
        offset = self.bus.write(entry).result(timeout=15)
        # The ack may come before the message itself, and the next read must see the write.
        self.bus.arrivals.wait(lambda: True if self.bus.last >= offset else NOT_YET, 15, "its own write")

    def _current_tally(self) -> Tally:
        while True:
            try:
                self._tally.count(self._log.get_kept())
            except LookupError:
                return self._tally
            except Lagged:
                self._tally = Tally()
                self._log.close()
                self._log = self.bus.messages(since="start")
