"""A client of a kernel, which drives it as a notebook's page does."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import websocket

from .site import Site

GREETING_TIMEOUT = 60.0  # seconds


class CellFailed(Exception):
    """The cell raised. The message is the last line of its traceback; ``result`` is its output."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"{result.error}\n{result.stderr}")
        self.result = result


@dataclass
class Result:
    """The output of a cell. ``value`` is the text of its last expression, ``data`` all of its MIME types."""

    stdout: str = ""
    stderr: str = ""
    value: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    displays: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""


class Kernel:
    """A kernel of a server. Use it from one thread at a time."""

    def __init__(self, site: Site, kernel_id: str, user: str) -> None:
        self.site = site
        self.id = kernel_id
        self.user = user
        self._session = uuid.uuid4().hex
        self._socket: websocket.WebSocket | None = None
        self._cells: dict[str, Cell] = {}

    def run(self, code: str, timeout: float = 60) -> Result:
        """Run a cell to its end.

        Raises:
            CellFailed: The cell raised.
            TimeoutError: The cell did not end within ``timeout`` seconds.
        """
        return self.submit(code).result(timeout)

    def submit(self, code: str) -> Cell:
        """Start a cell, and return at once."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": False}
        return self._send("shell", "execute_request", content)

    def _send(self, channel: str, kind: str, content: dict[str, Any]) -> Cell:
        socket = self._connected()
        message_id = uuid.uuid4().hex
        header = {
            "msg_id": message_id,
            "msg_type": kind,
            "session": self._session,
            "username": self.user,
            "date": "",
            "version": "5.3",
        }
        cell = self._cells[message_id] = Cell(self)
        message = {"channel": channel, "header": header, "parent_header": {}, "metadata": {}, "content": content}
        socket.send(json.dumps(message))
        return cell

    def interrupt(self) -> None:
        self._act("POST", "/interrupt")

    def restart(self) -> None:
        """Restart the kernel. Cells that were submitted before have no result."""
        self._act("POST", "/restart")
        self._cells.clear()
        self.close()

    def shutdown(self) -> None:
        self.close()
        self._act("DELETE")

    def close(self) -> None:
        """Close the WebSocket; the kernel keeps running."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def state(self) -> str:
        """Return the execution state that the server reports: "idle", "busy", "starting" …"""
        return str(self.site.request("GET", f"api/kernels/{self.id}", self.user).json()["execution_state"])

    def _act(self, method: str, action: str = "") -> None:
        self.site.request(method, f"api/kernels/{self.id}{action}", self.user, timeout=90).good()

    def _connected(self) -> websocket.WebSocket:
        if self._socket is None:
            url = "ws" + self.site.url[4:] + f"api/kernels/{self.id}/channels?session_id={self._session}"
            self._socket = self.site.websocket(url, self.site.headers(self.user))
            self._greet()
        return self._socket

    def _greet(self) -> None:
        """Ask the kernel who it is until its output arrives.

        What a kernel publishes while the server's output socket is still connecting to it is lost, the end of a cell
        included; Jupyter's own check is skipped for a kernel that was restarted. The control channel answers for a busy
        kernel too.
        """
        deadline = time.monotonic() + GREETING_TIMEOUT
        greetings: list[Cell] = []
        while not any(greeting.idle for greeting in greetings):
            greetings.append(self._send("control", "kernel_info_request", {}))
            try:
                self.pump(lambda: any(greeting.idle for greeting in greetings), 0.5)
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise

    def pump(self, until: Callable[[], bool], timeout: float) -> None:
        """Process the kernel's messages until ``until()`` is true.

        Raises:
            TimeoutError: It was still false after ``timeout`` seconds.
        """
        socket, deadline = self._connected(), time.monotonic() + timeout
        while not until():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(f"kernel {self.id} did not finish within {timeout} s")
            socket.settimeout(remaining)
            try:
                # Returns for a ping too: the server's pings would otherwise start the time-out anew for ever.
                opcode, received = socket.recv_data(control_frame=True)
            except websocket.WebSocketTimeoutException:
                continue
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                raise websocket.WebSocketConnectionClosedException(f"the server closed the WebSocket: {received!r}")
            if opcode != websocket.ABNF.OPCODE_TEXT:  # bytes have buffers, so they are for a widget in a page
                continue
            message = json.loads(received)
            cell = self._cells.get(message["parent_header"].get("msg_id", ""))
            if cell is not None:
                cell.receive(message["msg_type"], message["content"])


class Cell:
    """A submitted cell."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._result = Result()
        self._replied = self._idle = False

    @property
    def done(self) -> bool:
        """True if the cell has ended, as far as messages were processed (see `Kernel.pump`)."""
        return self._replied and self._idle

    @property
    def idle(self) -> bool:
        """True if the kernel's output channel has told the end."""
        return self._idle

    @property
    def so_far(self) -> Result:
        return self._result

    def result(self, timeout: float = 60) -> Result:
        """Wait for the cell's end. Raises as `Kernel.run` does."""
        self._kernel.pump(lambda: self.done, timeout)
        if self._result.error:
            raise CellFailed(self._result)
        return self._result

    def until_printed(self, text: str, timeout: float = 60) -> None:
        """Wait until the cell's output contains ``text``, for a cell that prints it and keeps running."""
        self._kernel.pump(lambda: self.done or text in self._result.stdout, timeout)
        assert text in self._result.stdout, self._result

    def receive(self, kind: str, content: dict[str, Any]) -> None:
        result = self._result
        if kind == "stream":
            setattr(result, content["name"], getattr(result, content["name"]) + content["text"])
        elif kind == "execute_result":
            result.data = content["data"]
            result.value = content["data"].get("text/plain")
        elif kind == "display_data":
            result.displays.append(content["data"])
        elif kind == "error":
            result.error = f"{content['ename']}: {content['evalue']}"
        elif kind == "execute_reply":
            self._replied = True
        elif kind == "status" and content["execution_state"] == "idle":
            self._idle = True
