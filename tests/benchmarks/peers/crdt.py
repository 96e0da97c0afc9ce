"""For peers that share a CRDT document: a writer's edits, as they are sent."""

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
        """The answer to the request for our state: an empty document, as a sync step 2 message."""
        import pycrdt

        answer = bytearray(pycrdt.create_update_message(self._doc.get_update()))
        answer[1] = int(pycrdt.YSyncMessageType.SYNC_STEP2)
        return bytes(answer)

    def set(self, text: str) -> bytes:
        """The edit, as a sync message."""
        self._map["note"] = text
        return self._made.pop()
