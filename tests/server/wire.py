"""A client that sends raw frames, valid and invalid ones, over a real WebSocket."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import websocket

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.message import Participant
from ebus_jupyter.core.protocol.seat import decode_seat

from .harness import Site

F = TypeVar("F", bound=frames.Frame)


class Refused(Exception):
    """The server refused the handshake; ``status`` and the answer's ``code`` and ``text`` say why."""

    def __init__(self, status: int, answer: Mapping[str, str]) -> None:
        self.status, self.code, self.text = status, answer["code"], answer["text"]
        super().__init__(f"{status} {self.code}: {self.text}")


class Wire:
    """One connection. ``auth`` is the whole ``Authorization`` header.

    Raises:
        Refused: The server answered the handshake with an error.
    """

    def __init__(
        self, site: Site, *, auth: str = "", origin: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        sent = {**({"Authorization": auth} if auth else {}), **(headers or {})}
        try:
            self.socket = site.websocket(site.ws_url, sent, origin=origin, timeout=20)
        except websocket.WebSocketBadStatusException as refused:
            body: Any = refused.resp_body
            raise Refused(refused.status_code, json.loads(body)) from None
        self._received: list[frames.BrokerFrame] = []
        self._changes: list[msgspec.Raw] = []
        self.closed: tuple[int, str] | None = None

    def send(self, *sent: frames.ClientFrame) -> None:
        self.socket.send_binary(frames.join([frames.encode(frame) for frame in sent]))

    def read(self) -> frames.BrokerFrame | None:
        """Return the next frame; None once the server has closed the connection (`closed` has the code and the reason)."""
        while not self._received:
            kind, data = self.socket.recv_data()
            if kind == websocket.ABNF.OPCODE_CLOSE:
                self.closed = int.from_bytes(data[:2], "big"), data[2:].decode()
                return None
            self._received = frames.from_broker(data)
        return self._received.pop(0)

    def expect(self, kind: type[F]) -> F:
        """Return the next frame of that kind. Others before it are skipped; an error or a bye fails."""
        while (frame := self.read()) is not None:
            if isinstance(frame, kind):
                return frame
            assert not isinstance(frame, frames.Error | frames.Bye), frame
        raise AssertionError(f"the connection ended ({self.closed}) before a {kind.__name__}")

    def expect_end(self) -> frames.Bye:
        """Read until the connection is closed, and return the last frame, which must be a bye."""
        last = frame = self.read()
        while frame is not None:
            last, frame = frame, self.read()
        assert isinstance(last, frames.Bye), last
        return last

    def hello(self) -> frames.Welcome:
        self.send(frames.Hello(frames.VERSION, secrets.token_hex(16), "wire"))
        return self.expect(frames.Welcome)

    def open(self, name: str, scope: str = "server") -> frames.Opened:
        self.send(frames.Open(1, scope, name))
        return self.expect(frames.Opened)

    def publish(self, bus: frames.Opened, number: int, value: Any) -> None:
        self.send(frames.Publish(bus.bus, number, msgspec.Raw(msgspec.msgpack.encode(value))))

    def watch(self, bus: frames.Opened) -> None:
        """Watch presence; the first answer (a snapshot) is skipped."""
        self.send(frames.SetPresence(bus.bus, frames.NIL, watch=True))
        self.expect(frames.Presence)

    def next_presence(self) -> tuple[Participant, str, str]:
        """Return the next change of presence: who, "here" or "away", and the kernel's activity."""
        while not self._changes:
            self._changes += self.expect(frames.Presence).here
        who, status, _, _, activity = decode_seat(self._changes.pop(0))
        return who, status, activity

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
