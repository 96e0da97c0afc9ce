"""Outgoing frames: those that are ready, writes that wait in their bus's batch to be sent together, and writes that are held.

Going back
    A write is held while the broker's rate allows no more (`pace`). Where the broker refuses one for its rate all the same, it
    refuses the later ones of this connection as well, until a ``Ping`` tells that this client knows. So the client sends a
    ``Ping`` at the first refusal; its ``Pong`` comes behind all of them. Then the refused writes are sent again, in order and
    before all others: writes arrive whole, and in the order in which they were made.
"""

from __future__ import annotations

from collections import deque

from ebus_jupyter.core.protocol import frames

from .channel import Channel
from .pace import Pace

HEAD_BYTES = 5
"""The most bytes of a WebSocket message besides its frames."""


class Outbox:
    """The outgoing frames of one connection, in order, each encoded when it is sent.

    Attributes:
        pace: The broker's rate.
    """

    def __init__(self) -> None:
        self.pace = Pace()
        self._now = 0.0
        self._ready: list[bytes] = []
        self._gathering: dict[Channel, None] = {}  # those with a batch, and some that have none any more
        self._held: deque[tuple[Channel, frames.Publish | frames.Delete]] = deque()
        self._refused: dict[int, tuple[Channel, frames.Publish]] = {}
        self._pings = 0
        self._waits_for_pong = False

    def __bool__(self) -> bool:
        """True while a frame is ready."""
        return bool(self._ready)

    def send(self, frame: frames.Frame) -> None:
        """Add a frame."""
        self._ready.append(frames.encode(frame))

    def write(self, frame: frames.Publish, channel: Channel) -> None:
        """Add a write, now or once the broker's rate allows it."""
        if self._held or self._waits_for_pong or not self.pace.take(self._now):
            self._held.append((channel, frame))
        else:
            self._ready.append(frames.encode(frame))

    def send_behind(self, frame: frames.Delete, channel: Channel) -> None:
        """Add a frame that must not overtake the writes before it."""
        if self._held or self._waits_for_pong:
            self._held.append((channel, frame))
        else:
            self.send(frame)

    def publish(self, frame: frames.Publish, channel: Channel, now: float) -> None:
        """Add a write, or put it into its bus's batch. A write never overtakes an earlier one that waits there."""
        if now > self._now:
            self._now = now
        if channel.flush_size == 1 and not channel.batch:
            self.write(frame, channel)
            return
        if not channel.batch:
            channel.batch_since = now
            self._gathering[channel] = None
        channel.batch.append(frame.id)
        if len(channel.batch) >= channel.flush_size:
            self.flush(channel)

    def flush(self, channel: Channel) -> None:
        """Add the writes that wait in the bus's batch."""
        self._gathering.pop(channel, None)
        while channel.batch:
            frame = channel.unacked.get(channel.batch.popleft())
            if frame is not None:
                self.write(frame, channel)

    # --- time and the broker's rate ---------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Add the writes of every batch that has waited for its interval, and those held that may be sent now."""
        if now > self._now:
            self._now = now
        if self._gathering:
            for channel in [channel for channel in self._gathering if now >= channel.batch_deadline]:
                self.flush(channel)
        while self._held and not self._waits_for_pong:
            channel, frame = self._held[0]
            # A bus that has ended, or has another number by now, has settled its writes or sends them anew.
            if frame.bus == channel.number and (isinstance(frame, frames.Delete) or frame.id in channel.unacked):
                if isinstance(frame, frames.Publish) and not self.pace.take(self._now):
                    break
                self.send(frame)
            self._held.popleft()

    @property
    def waits(self) -> bool:
        """Whether writes wait for time to pass, or for a pong."""
        return bool(self._gathering or self._held)

    def deadlines(self) -> list[float]:
        """The times at which `tick` has something to do."""
        times = [channel.batch_deadline for channel in self._gathering if channel.batch]
        if self._held and not self._waits_for_pong:
            times.append(self._now + self.pace.wait(self._now, len(self._held)))
        return times

    def delay(self, now: float) -> float:
        """The seconds for which a new write would be held; 0 where it would be sent at once."""
        self._now = max(self._now, now)
        if self._held or self._waits_for_pong:
            return max(0.001, self.pace.wait(self._now, len(self._held) + 1))
        return self.pace.wait(self._now)

    def refused(self, write: tuple[Channel, frames.Publish] | None, retry_after: float, now: float) -> None:
        """The broker has refused a write for its rate; ``write`` is to be sent again, None where it is not."""
        if write is not None:
            self._refused[write[1].id] = write
        if not self._waits_for_pong:
            self._waits_for_pong = True
            self._pings += 1
            self.send(frames.Ping(self._pings))
            self.pace.stop_until(now + retry_after)

    def ponged(self, n: int) -> None:
        """The broker has answered a ping: it has answered every write before it, too."""
        if self._waits_for_pong and n == self._pings:
            self._waits_for_pong = False
            self._held.extendleft(self._refused.pop(id_) for id_ in sorted(self._refused, reverse=True))

    # --- sending ----------------------------------------------------------------------------------------------------

    def take(self, max_bytes: int) -> bytes | None:
        """Take as many frames as fit into ``max_bytes``, but at least one, as one WebSocket message; None without any."""
        if not self._ready:
            return None
        size = HEAD_BYTES
        for n, frame in enumerate(self._ready):
            size += len(frame)
            if n and size > max_bytes:
                taken, self._ready = self._ready[:n], self._ready[n:]
                return frames.join(taken)
        taken, self._ready = self._ready, []
        return frames.join(taken)

    def clear(self) -> None:
        """Drop everything: its connection is gone."""
        self._ready.clear()
        self._gathering.clear()
        self._held.clear()
        self._refused.clear()
        self._waits_for_pong = False
