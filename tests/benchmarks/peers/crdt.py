"""What the peers that share a CRDT document have in common: a writer's edits of it, as they travel."""

from __future__ import annotations

from . import base


class Edits:
    """One writer's copy of a document. Each edit sets one entry of a map to a text."""

    def __init__(self) -> None:
        try:
            import pycrdt
        except ImportError:
            raise base.Unavailable("pycrdt is not installed") from None
        self._doc = pycrdt.Doc()
        self._map = self._doc.get("bench", type=pycrdt.Map)
        self._made: list[bytes] = []
        self._doc.observe(lambda event: self._made.append(pycrdt.create_update_message(event.update)))

    def hello(self) -> bytes:
        """The answer to "what have you got?": nothing. (An update, under the number of that answer.)"""
        import pycrdt

        said = bytearray(pycrdt.create_update_message(self._doc.get_update()))
        said[1] = int(pycrdt.YSyncMessageType.SYNC_STEP2)
        return bytes(said)

    def set(self, text: str) -> bytes:
        """The edit, as a sync message."""
        self._map["note"] = text
        return self._made.pop()
