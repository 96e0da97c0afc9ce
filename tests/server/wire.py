"""A client of raw frames on a real socket, for tests of what a server does with good and with bad ones."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import websocket

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.frames import read_seat
from ebus_jupyter.core.protocol.message import Participant

from .harness import Server

F = TypeVar("F", bound=frames.Frame)


class TurnedAway(Exception):
    """The server refused the connection; ``status`` and the answer's ``code`` and ``text`` say why."""

    def __init__(self, status: int, answer: Mapping[str, str]) -> None:
        self.status, self.code, self.text = status, answer["code"], answer["text"]
        super().__init__(f"{status} {self.code}: {self.text}")


class Wire:
    """One connection. ``auth`` is the whole ``Authorization`` header.

    Raises:
        TurnedAway: The server answered the handshake with an error.
    """

    def __init__(
        self, server: Server, *, auth: str = "", origin: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        said = {**({"Authorization": auth} if auth else {}), **(headers or {})}
        tls = {"ca_certs": str(server.tls[0]), "check_hostname": False} if server.tls else None
        try:
            self.socket = websocket.create_connection(
                server.ws_url,
                header=said,
                origin=origin or None,
                suppress_origin=not origin,
                timeout=20,
                sslopt=tls,
                http_no_proxy=["127.0.0.1"],
            )
        except websocket.WebSocketBadStatusException as refused:
            body: Any = refused.resp_body
            raise TurnedAway(refused.status_code, json.loads(body)) from None
        self._waiting: list[frames.BrokerFrame] = []
        self._seats: list[msgspec.Raw] = []
        self.closed: tuple[int, str] | None = None

    def send(self, *sent: frames.ClientFrame) -> None:
        self.socket.send_binary(frames.join([frames.encode(frame) for frame in sent]))

    def read(self) -> frames.BrokerFrame | None:
        """The next frame; None once the server has closed the connection (`closed` says how)."""
        while not self._waiting:
            kind, data = self.socket.recv_data()
            if kind == websocket.ABNF.OPCODE_CLOSE:
                self.closed = int.from_bytes(data[:2], "big"), data[2:].decode()
                return None
            self._waiting = frames.from_broker(data)
        return self._waiting.pop(0)

    def expect(self, kind: type[F]) -> F:
        """The next frame of that kind; others before it are passed over."""
        while (frame := self.read()) is not None:
            if isinstance(frame, kind):
                return frame
            assert not isinstance(frame, frames.Error | frames.Bye), frame
        raise AssertionError(f"the connection ended ({self.closed}) before a {kind.__name__}")

    def expect_end(self) -> frames.Bye:
        """The goodbye that the server says before it closes the connection; whatever comes before is passed over."""
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
        """Ask for presence; the first answer (a snapshot) is passed over."""
        self.send(frames.SetPresence(bus.bus, frames.NIL, watch=True))
        self.expect(frames.Presence)

    def seat(self) -> tuple[Participant, str, str]:
        """The next change of presence: who, "here" or "away", and what that kernel is doing."""
        while not self._seats:
            self._seats += self.expect(frames.Presence).here
        who, status, _, _, activity = read_seat(self._seats.pop(0))
        return who, status, activity

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
