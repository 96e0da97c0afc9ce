"""The HTTP API as a script, a dashboard or a page without the client uses it."""

from __future__ import annotations

import json
import time
from typing import Any

from .harness import Answer, Site

BUS = "ebus/api/buses/{scope}/{name}/{what}"


def read(site: Site, name: str, query: str = "", user: str = "alice", scope: str = "server") -> Answer:
    return site.request("GET", BUS.format(scope=scope, name=name, what="messages") + query, user)


def write(site: Site, name: str, user: str = "alice", scope: str = "server", **body: Any) -> Answer:
    answer = site.request("POST", BUS.format(scope=scope, name=name, what="messages"), user, body=body)
    assert answer.status < 500, answer.body
    return answer


def values(answer: Answer) -> list[Any]:
    return [message["value"] for message in answer.good().json()["messages"]]


class EventSource:
    """Reads server-sent events as a browser's EventSource does, and keeps the id of the last one."""

    def __init__(self, site: Site, name: str, query: str = "", *, last: str = "", user: str = "alice") -> None:
        path = BUS.format(scope="server", name=name, what="events") + query
        self.response = site.stream("GET", path, user, headers={"Last-Event-ID": last} if last else {}, timeout=10)
        self.last = last
        self.comments = 0
        assert self.response.headers["Content-Type"].startswith("text/event-stream")
        assert self.next() == ("retry", "1000")

    def next(self) -> tuple[str, Any]:
        """Return the next event: its kind (by default "message") and its data.

        Raises:
            EOFError: The server has closed the stream.
        """
        kind, data = "message", None
        deadline = time.monotonic() + 15
        while True:
            assert time.monotonic() < deadline, "nothing but comments"
            line = self.response.readline().decode()
            if not line:
                raise EOFError
            field, _, content = line.rstrip("\n").partition(": ")
            match field:
                case "":
                    if data is not None:
                        return kind, data
                    self.comments += content != ""
                case "event":
                    kind = content
                case "id":
                    self.last = content
                case "data":
                    data = json.loads(content)
                case "retry":
                    kind, data = field, content

    def take(self, n: int) -> list[Any]:
        """Return the values of the next ``n`` messages."""
        events = [self.next() for _ in range(n)]
        assert {kind for kind, _ in events} == {"message"}, events
        return [data["value"] for _, data in events]

    def close(self) -> None:
        self.response.close()

    def __enter__(self) -> EventSource:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
