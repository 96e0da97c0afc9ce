"""Buses over plain HTTP, as a script, a dashboard or a page without the client meets them."""

from __future__ import annotations

import http.cookiejar
import json
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ebus_jupyter as ebus
from ebus_jupyter.client.client import Client

from .conftest import RULES
from .harness import Answer, Server

BUS = "ebus/api/buses/{scope}/{name}/{what}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(
        tmp_path_factory.mktemp("rest"),
        users=("alice", "bob", "carol", "mallory"),
        base_url="/deep/er/",
        config=RULES + "c.EBus.ping_interval = 0.3\n",
    ) as running:
        yield running


@pytest.fixture
def name() -> str:
    """A bus that no other test uses."""
    return f"bus-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def client_of(server: Server) -> Iterator[Callable[[str], Client]]:
    made: list[Client] = []

    def make(user: str) -> Client:
        made.append(ebus.connect(server.url, server.token(user)))
        return made[-1]

    yield make
    for client in made:
        client.close()


def read(server: Server, name: str, query: str = "", user: str = "alice", scope: str = "server") -> Answer:
    return server.request("GET", BUS.format(scope=scope, name=name, what="messages") + query, user)


def write(server: Server, name: str, user: str = "alice", scope: str = "server", **body: Any) -> Answer:
    answer = server.request("POST", BUS.format(scope=scope, name=name, what="messages"), user, body=body)
    assert answer.status < 500, answer.body
    return answer


def values(answer: Answer) -> list[Any]:
    return [message["value"] for message in answer.good().json()["messages"]]


class Events:
    """What a browser's EventSource does: reads events, and knows the id of the last one."""

    def __init__(self, server: Server, name: str, query: str = "", *, last: str = "", user: str = "alice") -> None:
        headers = server.headers(user) | ({"Last-Event-ID": last} if last else {})
        url = server.url + BUS.format(scope="server", name=name, what="events") + query
        self.response = server._opener().open(urllib.request.Request(url, headers=headers), timeout=10)
        self.last = last
        self.comments = 0
        assert self.response.headers["Content-Type"].startswith("text/event-stream")
        assert self.next() == ("retry", "1000")

    def next(self) -> tuple[str, Any]:
        """The next event: its kind ("message" where it has none) and data. EOFError where the server has ended."""
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
        found = [self.next() for _ in range(n)]
        assert {kind for kind, _ in found} == {"message"}, found
        return [data["value"] for _, data in found]

    def close(self) -> None:
        self.response.close()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


# --- reading and writing ----------------------------------------------------------------------------------------------


def test_what_is_written_is_there_with_its_stamped_sender(server: Server, name: str) -> None:
    answer = write(server, name, user="bob", value={"tea": 1})
    assert (answer.status, answer.json()) == (201, {"offset": 1})
    [message] = read(server, name).good().json()["messages"]
    assert message["value"] == {"tea": 1}
    assert (message["sender"]["user"], message["sender"]["kind"]) == ("bob", "client")


def test_the_next_question_goes_on_where_the_answer_ended(server: Server, name: str) -> None:
    for n in range(5):
        write(server, name, value=n)
    first = read(server, name, "?limit=3")
    assert (values(first), first.json()["more"]) == ([0, 1, 2], True)
    second = read(server, name, f"?since={first.json()['next']}")
    assert (values(second), second.json()["more"]) == ([3, 4], False)
    assert values(read(server, name, f"?since={second.json()['next']}")) == []
    write(server, name, value="new")
    assert values(read(server, name, f"?since={second.json()['next']}")) == ["new"]


@pytest.mark.parametrize(
    ("query", "found"), [("", [0, 1, 2]), ("?since=start", [0, 1, 2]), ("?since=2", [2]), ("?since=-2", [1, 2])]
)
def test_one_reads_from_where_one_likes(server: Server, name: str, query: str, found: list[int]) -> None:
    for n in range(3):
        write(server, name, value=n)
    answer = read(server, name, query)
    assert (values(answer), answer.json()["missed"]) == (found, 0)


def test_who_comes_too_late_is_told_how_much_was_missed(
    server: Server, name: str, client_of: Callable[[str], Client]
) -> None:
    client_of("alice").bus(name, size=2)
    write(server, name, value="a")
    seen = read(server, name).json()["next"]
    for value in "bcde":
        write(server, name, value=value)
    for since in (seen, "1"):
        late = read(server, name, f"?since={since}").json()
        assert ([message["value"] for message in late["messages"]], late["missed"]) == (["d", "e"], 2)


def test_a_bus_that_was_begun_anew_is_not_taken_for_the_old_one(
    server: Server, name: str, client_of: Callable[[str], Client]
) -> None:
    for n in range(3):
        write(server, name, value=n)
    seen = read(server, name).json()["next"]
    client_of("alice").bus(name).delete()
    for value in "abcd":
        write(server, name, value=value)
    answer = read(server, name, f"?since={seen}")
    assert (values(answer), answer.json()["missed"]) == (list("abcd"), None)


def test_values_that_json_has_no_word_for_go_both_ways(
    server: Server, name: str, client_of: Callable[[str], Client]
) -> None:
    bus = client_of("alice").bus(name)
    bus.write({"picture": b"hi"}).result(10)
    bus.write(np.array([1.5, 2.5])).result(10)
    picture, array = values(read(server, name))
    assert picture == {"picture": {"$bytes": "aGk="}}
    heard = bus.stream(since=2)
    write(server, name, value=picture).good()
    write(server, name, value=array).good()
    assert heard.get(10) == {"picture": b"hi"}
    np.testing.assert_array_equal(heard.get(10), [1.5, 2.5])


def test_a_key_is_set_and_removed_and_compared(server: Server, name: str, client_of: Callable[[str], Client]) -> None:
    state = client_of("alice").state(name)
    assert write(server, name, key="speed", value=1).status == 201
    assert write(server, name, key="speed", value=2, expect=7).json()["code"] == "conflict"
    assert write(server, name, key="speed", value=2, expect=1).json() == {"offset": 2}
    write(server, name, key="tea", value="green")
    write(server, name, key="speed", deleted=True)
    found = {message["key"]: message.get("deleted", False) for message in read(server, name).json()["messages"]}
    assert found == {"tea": False, "speed": True}
    assert state.replace("tea", "green", "black")


def test_a_write_for_some_is_read_by_those(server: Server, name: str) -> None:
    write(server, name, to="bob", value="psst")
    assert [values(read(server, name, user=user)) for user in ("bob", "carol")] == [["psst"], []]


def test_a_write_sent_again_with_its_key_is_written_once(server: Server, name: str) -> None:
    path, key = BUS.format(scope="server", name=name, what="messages"), {"Idempotency-Key": str(uuid.uuid4())}
    answers = [server.request("POST", path, "alice", body={"value": 1}, headers=key).json() for _ in range(3)]
    assert answers == [{"offset": 1}] * 3
    assert values(read(server, name)) == [1]


def test_who_only_asked_is_not_shown_as_someone_who_is_there(
    server: Server, name: str, client_of: Callable[[str], Client]
) -> None:
    bus = client_of("alice").bus(name)
    write(server, name, user="bob", value=1)
    read(server, name, user="bob")
    assert [who.user for who in bus.participants] == ["alice"]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "bus", "query", "status", "code", "next_step"),
    [
        ("server", "nowhere", "", 404, "no_such_bus", "Check the name"),
        ("kernel", "mine", "", 403, "forbidden", "open the bus in the kernel"),
        ("galaxy", "x", "", 400, "unknown_scope", "choose one of"),
        ("hub", "x", "", 400, "unknown_scope", "JupyterHub service"),
        ("server", "two%20words", "", 400, "invalid_name", "letters, digits"),
        ("server", "x%2Fy", "", 400, "invalid_name", "letters, digits"),
        ("server", "x", "?since=yesterday", 400, "protocol", "'start'"),
        ("server", "x", "?limit=0", 400, "protocol", "1…1000"),
    ],
)
def test_a_question_that_makes_no_sense_gets_a_named_error(
    server: Server, scope: str, bus: str, query: str, status: int, code: str, next_step: str
) -> None:
    answer = read(server, bus, query, scope=scope)
    said = answer.json()
    assert (answer.status, said["code"]) == (status, code)
    assert next_step in said["text"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "protocol"),
        ({"valeu": 1}, 400, "protocol"),
        ({"value": 1, "deleted": True}, 400, "protocol"),
        ({"value": "tea"}, 422, "type_mismatch"),
        ({"value": {"$bytes": "%"}}, 422, "type_mismatch"),
        ({"value": 1, "key": "k"}, 422, "type_mismatch"),
        ({"value": 1 << 80}, 422, "type_mismatch"),
        ({"value": 1, "expect": 99}, 409, "conflict"),
        ({"value": 1, "expect": 99.0}, 409, "conflict"),
        ({"value": 1, "expect": 0.5}, 400, "protocol"),
        ({"value": 1, "expect": -1}, 400, "protocol"),
    ],
)
def test_a_write_that_is_refused_says_why_and_writes_nothing(
    server: Server, name: str, client_of: Callable[[str], Client], body: Any, status: int, code: str
) -> None:
    client_of("alice").bus(name, int)
    answer = write(server, name, **body)
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert values(read(server, name)) == []


def test_a_type_error_names_the_path(server: Server, name: str, client_of: Callable[[str], Client]) -> None:
    client_of("alice").bus(name, dict[str, int])
    said = write(server, name, value={"tea": "much"}).json()
    assert said["details"]["path"] == "$.tea"


def test_too_much_is_refused_with_the_limit_that_it_is_over(server: Server, name: str) -> None:
    answer = write(server, name, value="x" * 1_100_000)  # over the tests' `batch_bytes`
    assert (answer.status, answer.json()["details"]) == (413, {"limit": "batch_bytes"})


# --- who may ----------------------------------------------------------------------------------------------------------


def test_a_stranger_is_asked_who_that_is(server: Server, name: str) -> None:
    answer = server.request("GET", "ebus/api/buses")
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json()["code"] == "unauthenticated"


def test_the_user_scope_is_one_s_own(server: Server, name: str) -> None:
    write(server, name, scope="user", value="mine")
    assert values(read(server, name, scope="user")) == ["mine"]
    assert read(server, name, scope="user", user="bob").status == 404


def test_the_authorizer_decides_who_reads_and_who_writes(server: Server, name: str) -> None:
    write(server, name, value=1)
    assert read(server, name, user="mallory").json()["code"] == "forbidden"
    assert values(read(server, name, user="carol")) == [1]
    assert write(server, name, user="carol", value=2).status == 403


def test_a_bus_that_is_not_for_someone_does_not_exist_for_them(
    server: Server, client_of: Callable[[str], Client]
) -> None:
    assert write(server, "board", value="alice's").status == 201
    assert read(server, "board", user="bob").status == 404

    def listed(user: str) -> set[str]:
        over_http = {bus["name"] for bus in server.request("GET", "ebus/api/buses", user).good().json()}
        assert over_http == {bus["name"] for bus in client_of(user).buses()}
        return over_http

    assert "board" in listed("alice")
    assert "board" not in listed("bob")


def test_the_list_says_what_each_bus_is(server: Server, name: str, client_of: Callable[[str], Client]) -> None:
    client_of("alice").bus(name, int, size=7)
    write(server, name, value=1)
    [bus] = [bus for bus in server.request("GET", "ebus/api/buses", "bob").json() if bus["name"] == name]
    assert bus["address"] == f"ebus:server/{name}"
    assert (bus["spec"]["type"], bus["spec"]["schema"], bus["spec"]["size"]) == ("int", {"type": "integer"}, 7)
    assert (bus["participants"], bus["last"]) == (1, 1)


def test_a_page_writes_with_its_cookie_only_if_it_shows_that_it_is_ours(server: Server, name: str) -> None:
    cookies = http.cookiejar.CookieJar()
    page = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(cookies)
    ).open
    page(server.url + f"login?token={server.token('alice')}", timeout=10).close()
    xsrf = next(cookie.value for cookie in cookies if cookie.name == "_xsrf")

    def post(headers: dict[str, str]) -> int:
        url = server.url + BUS.format(scope="server", name=name, what="messages")
        try:
            with page(urllib.request.Request(url, b'{"value": 1}', headers), timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code

    assert post({}) == 403
    assert post({"X-XSRFToken": str(xsrf)}) == 201


def test_a_method_that_is_not_there_says_which_are(server: Server, name: str) -> None:
    answer = server.request("DELETE", BUS.format(scope="server", name=name, what="messages"), "alice")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST, OPTIONS")


# --- events -----------------------------------------------------------------------------------------------------------


def test_events_come_as_they_are_written(server: Server, name: str) -> None:
    write(server, name, value="before")
    with Events(server, name) as events:
        write(server, name, value="now")
        assert events.take(1) == ["now"]


def test_events_since_the_start_then_live_without_a_gap(server: Server, name: str) -> None:
    for n in range(3):
        write(server, name, value=n)
    writer = threading.Thread(target=lambda: [write(server, name, value=n) for n in range(3, 20)])
    writer.start()
    with Events(server, name, "?since=start") as events:
        assert events.take(20) == list(range(20))
    writer.join()


def test_a_dashboard_that_comes_back_misses_nothing_even_over_a_restart(server: Server, name: str) -> None:
    write(server, name, value=0)
    with Events(server, name, "?since=start") as events:
        assert events.take(1) == [0]
        write(server, name, value=1)
        server.restart()
        assert events.take(1) == [1]
        with pytest.raises(EOFError):  # no word of "closed": an EventSource comes back
            events.next()
    write(server, name, value=2)
    with Events(server, name, last=events.last) as again:
        assert again.take(1) == [2]


def test_a_dashboard_that_comes_back_too_late_is_told(
    server: Server, name: str, client_of: Callable[[str], Client]
) -> None:
    client_of("alice").bus(name, size=2)
    write(server, name, value="a")
    with Events(server, name, "?since=start") as events:
        events.take(1)
    for value in "bcde":
        write(server, name, value=value)
    with Events(server, name, last=events.last) as again:
        kind, lag = again.next()
        assert (kind, lag["details"]) == ("lagged", {"skipped": 2, "resume_after": 3})
        assert again.take(2) == ["d", "e"]


def test_an_id_from_elsewhere_is_a_place_in_another_history(server: Server, name: str) -> None:
    write(server, name, value="here")
    with Events(server, name, last="some other server's") as events:
        kind, lag = events.next()
        assert (kind, lag["details"]["skipped"]) == ("lagged", None)
        assert events.take(1) == ["here"]


def test_the_end_of_a_bus_is_said(server: Server, name: str, client_of: Callable[[str], Client]) -> None:
    bus = client_of("alice").bus(name)
    with Events(server, name) as events:
        bus.delete()
        kind, closed = events.next()
        assert (kind, closed["code"]) == ("closed", "closed")
        assert "alice has deleted" in closed["text"]
        with pytest.raises(EOFError):
            events.next()
    with pytest.raises(urllib.error.HTTPError, match="404"):  # which ends an EventSource for good
        Events(server, name)


def test_a_silent_bus_keeps_its_listeners_connected(server: Server, name: str) -> None:
    write(server, name, value=0)
    with Events(server, name) as events:
        done = threading.Timer(1.0, lambda: write(server, name, value="at last"))
        done.start()
        assert events.take(1) == ["at last"]
        assert events.comments >= 2


def test_a_listener_who_has_gone_is_no_longer_on_the_bus(
    server: Server, name: str, client_of: Callable[[str], Client]
) -> None:
    bus = client_of("alice").bus(name)
    changed = threading.Event()
    bus.presence.on_change(changed.set)
    with Events(server, name, user="bob"):
        while {who.user for who in bus.participants} != {"alice", "bob"}:
            assert changed.wait(10)
            changed.clear()
    while any(who.user == "bob" for who in bus.participants):
        assert changed.wait(10)
        changed.clear()
