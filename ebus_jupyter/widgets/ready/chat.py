"""A chat room. A message carries no name: the server stamps its sender.

room = ebus.widgets.Chat("lobby")
room.say("The training has begun.")
room.bus.on_message(lambda message: print(message.sender.name, message.value.text))
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import traitlets

from ebus_jupyter.client.ack import Ack
from ebus_jupyter.core.protocol.message import Message

from .view import BusView, own_bus

KEPT = 500
"""Lines that a room keeps."""


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """One message of a chat."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=4000)]


class Chat(BusView):
    """A chat, shared by everyone in ``scope`` who opens the same ``room``.

    Args:
        room: The room's name; its bus is called ``chat:ROOM``.
        scope: "server" (default), "user" or "kernel".
        title: The widget's heading. Default: the room's name.
    """

    _face = traitlets.Unicode("chat").tag(sync=True)

    def __init__(self, room: str, *, scope: str = "server", title: str | None = None) -> None:
        super().__init__(own_bus(f"chat:{room}", Line, scope=scope, size=KEPT), title or room)

    def say(self, text: str) -> Ack:
        """Send a message as this kernel.

        Raises:
            TypeMismatch: ``text`` is empty, or longer than 4000 characters.
        """
        return self.bus.write(Line(text))

    def history(self, n: int = KEPT) -> list[Message[Line]]:
        """The last ``n`` messages, with time and sender. Default: all that the room keeps."""
        found: list[Message[Line]] = []
        lines = self.bus.messages(since=-n)
        try:
            while True:
                found.append(lines.get_kept())
        except LookupError:
            return found[-n:]
        finally:
            lines.close()
