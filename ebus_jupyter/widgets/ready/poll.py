"""A poll with live bars. One vote a person: the server says whose a vote is, and the last one counts.

    lunch = ebus.widgets.Poll("lunch", question="Where to?", options=["Thai", "Pizza"])
    lunch.results                        # {"Thai": 2, "Pizza": 1}
    lunch.end()

Everything is on one log: questions, votes, and the end. Who reads it from the start comes to the same result as all others,
by the rules in `Tally`, which the page side (``js/src/widgets/poll.ts``) knows too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import traitlets

import ebus_jupyter as ebus
from ebus_jupyter.client.waiting import NOT_YET
from ebus_jupyter.core.protocol.message import Message
from ebus_jupyter.errors import Lagged

from .view import BusView

KEPT = 10_000
"""How many votes a poll remembers; of a poll with more changes of mind the oldest go."""

Words = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class Ask(msgspec.Struct, forbid_unknown_fields=True, tag="ask"):
    """A question. All votes before it are void."""

    question: Words
    options: Annotated[list[Words], msgspec.Meta(min_length=2, max_length=50)]


class Vote(msgspec.Struct, forbid_unknown_fields=True, tag="vote"):
    """The sender's vote; None withdraws it."""

    choice: Words | None


class Close(msgspec.Struct, forbid_unknown_fields=True, tag="close"):
    """Votes count no more, or again."""

    closed: bool


class Tally:
    """What counts.

    - Who asks first owns the poll; only the owner may ask anew, close and reopen.
    - A vote counts if the poll is open and has that option. A person's last vote counts.
    """

    def __init__(self) -> None:
        self.owner: str | None = None
        self.question = ""
        self.options: list[str] = []
        self.closed = False
        self.votes: dict[str, str] = {}

    def count(self, message: Message[Ask | Vote | Close]) -> None:
        """Take the next message of the log into account."""
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
    """A poll, for everyone in ``scope`` who has the same ``name``.

    Args:
        name: Its name; the bus is called ``poll:NAME``.
        question: What to ask. Left out: join the poll that there is. Where the poll is someone else's, theirs stands.
        options: The answers to choose from.
        scope: "server" (default), "user" or "kernel".
        title: What stands above it. Default: the name.
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
        super().__init__(ebus.bus(f"poll:{name}", Ask | Vote | Close, scope=scope, size=KEPT), title or name)
        self._tally = Tally()
        self._log = self.bus.messages(since="start")
        if question is not None:
            self.ask(question, options)

    def ask(self, question: str, options: Sequence[str]) -> None:
        """Ask; without effect where just that is asked already: a cell may be run again."""
        tally = self._counted()
        if tally.owner is None or (tally.question, tally.options) != (question, list(options)):
            self._write(Ask(question, list(options)))

    def vote(self, choice: str | None) -> None:
        """Vote as the user of this kernel; None withdraws the vote."""
        self._write(Vote(choice))

    def end(self, closed: bool = True) -> None:
        """No more votes. ``closed`` False: open it again. Counts only from whoever has asked."""
        self._write(Close(closed))

    @property
    def results(self) -> dict[str, int]:
        """How many have chosen each of the options."""
        tally = self._counted()
        chosen = list(tally.votes.values())
        return {option: chosen.count(option) for option in tally.options}

    @property
    def votes(self) -> dict[str, str]:
        """What each user has chosen."""
        return dict(self._counted().votes)

    @property
    def question(self) -> str:
        """What is asked; "" if nothing is."""
        return self._counted().question

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._counted().closed

    def _write(self, entry: Ask | Vote | Close) -> None:
        offset = self.bus.write(entry).result(timeout=15)
        # Accepted is not heard yet: what is asked next must know of it.
        self.bus.arrivals.wait(lambda: True if self.bus.last >= offset else NOT_YET, 15, "its own write")

    def _counted(self) -> Tally:
        while True:
            try:
                self._tally.count(self._log.get_kept())
            except LookupError:
                return self._tally
            except Lagged:
                self._tally = Tally()
                self._log.close()
                self._log = self.bus.messages(since="start")
