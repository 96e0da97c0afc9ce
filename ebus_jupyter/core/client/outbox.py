"""Outgoing frames: those that are ready, and writes that wait in their bus's batch to be sent together."""

from __future__ import annotations

from collections.abc import Iterable

from ebus_jupyter.core.protocol import frames

from .channel import Channel


class Outbox:
    """The outgoing frames of one connection, in order, each encoded when it is sent."""

    def __init__(self) -> None:
        self._ready: list[bytes] = []

    def __bool__(self) -> bool:
        """True while a frame is ready."""
        return bool(self._ready)

    def send(self, frame: frames.Frame) -> None:
        """Add a frame."""
        self._ready.append(frames.encode(frame))

    def publish(self, frame: frames.Publish, channel: Channel, now: float) -> None:
        """Add a write, or put it into its bus's batch. A write never overtakes an earlier one that waits there."""
        if channel.flush_size == 1 and not channel.batch:
            self._ready.append(frames.encode(frame))
            return
        if not channel.batch:
            channel.batch_since = now
        channel.batch.append(frame.id)

    def flush(self, channel: Channel) -> None:
        """Add the writes that wait in the bus's batch."""
        while channel.batch:
            frame = channel.unacked.get(channel.batch.popleft())
            if frame is not None:
                self.send(frame)

    def flush_due(self, channels: Iterable[Channel], now: float) -> None:
        """Add the writes of every batch that is full, or has waited for its interval."""
        for channel in channels:
            if channel.batch and (len(channel.batch) >= channel.flush_size or now >= channel.batch_deadline):
                self.flush(channel)

    def take(self, max_bytes: int) -> bytes | None:
        """Take as many frames as fit into ``max_bytes``, but at least one, as one WebSocket message; None without any."""
        if not self._ready:
            return None
        size = 0
        for n, frame in enumerate(self._ready):
            size += len(frame)
            if n and size > max_bytes:
                taken, self._ready = self._ready[:n], self._ready[n:]
                return frames.join(taken)
        taken, self._ready = self._ready, []
        return frames.join(taken)

    def clear(self) -> None:
        """Drop the frames that are ready: their connection is gone."""
        self._ready.clear()
