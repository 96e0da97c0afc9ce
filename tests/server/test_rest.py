"""Buses over plain HTTP: reading and writing, errors, and access."""

from __future__ import annotations

import http.cookiejar
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ebus_jupyter.client.client import Client

from .harness import Server
from .http_api import BUS, read, values, write

# --- reading and writing ----------------------------------------------------------------------------------------------


def test_written_value_is_read_with_its_stamped_sender(server: Server, name: str) -> None:
    answer = write(server, name, user="bob", value={"tea": 1})
    assert (answer.status, answer.json()) == (201, {"offset": 1})
    [message] = read(server, name).good().json()["messages"]
    assert message["value"] == {"tea": 1}
    assert (message["sender"]["user"], message["sender"]["kind"]) == ("bob", "client")


def test_next_resumes_where_the_answer_ended(server: Server, name: str) -> None:
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
    ("query", "expected"), [("", [0, 1, 2]), ("?since=start", [0, 1, 2]), ("?since=2", [2]), ("?since=-2", [1, 2])]
)
def test_since_selects_where_reading_starts(server: Server, name: str, query: str, expected: list[int]) -> None:
    for n in range(3):
        write(server, name, value=n)
    answer = read(server, name, query)
    assert (values(answer), answer.json()["missed"]) == (expected, 0)


def test_late_reader_is_told_how_many_messages_it_missed(
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


def test_position_in_a_deleted_bus_is_not_resumed_in_its_successor(
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


def test_values_that_json_cannot_represent_round_trip(
    server: Server, name: str, client_of: Callable[[str], Client]
) -> None:
    bus = client_of("alice").bus(name)
    bus.write({"picture": b"hi"}).result(10)
    bus.write(np.array([1.5, 2.5])).result(10)
    picture, array = values(read(server, name))
    assert picture == {"picture": {"$bytes": "aGk="}}
    received = bus.stream(since=2)
    write(server, name, value=picture).good()
    write(server, name, value=array).good()
    assert received.get(10) == {"picture": b"hi"}
    np.testing.assert_array_equal(received.get(10), [1.5, 2.5])


def test_keys_are_set_deleted_and_compared(server: Server, name: str, client_of: Callable[[str], Client]) -> None:
    state = client_of("alice").state(name)
    assert write(server, name, key="speed", value=1).status == 201
    assert write(server, name, key="speed", value=2, expect=7).json()["code"] == "conflict"
    assert write(server, name, key="speed", value=2, expect=1).json() == {"offset": 2}
    write(server, name, key="tea", value="green")
    write(server, name, key="speed", deleted=True)
    found = {message["key"]: message.get("deleted", False) for message in read(server, name).json()["messages"]}
    assert found == {"tea": False, "speed": True}
    assert state.replace("tea", "green", "black")


def test_write_to_named_users_is_read_by_them_only(server: Server, name: str) -> None:
    write(server, name, to="bob", value="psst")
    assert [values(read(server, name, user=user)) for user in ("bob", "carol")] == [["psst"], []]


def test_write_repeated_with_its_idempotency_key_is_written_once(server: Server, name: str) -> None:
    path, key = BUS.format(scope="server", name=name, what="messages"), {"Idempotency-Key": str(uuid.uuid4())}
    answers = [server.request("POST", path, "alice", body={"value": 1}, headers=key).json() for _ in range(3)]
    assert answers == [{"offset": 1}] * 3
    assert values(read(server, name)) == [1]


def test_finished_requests_leave_no_participant(server: Server, name: str, client_of: Callable[[str], Client]) -> None:
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
def test_invalid_request_gets_a_named_error(
    server: Server, scope: str, bus: str, query: str, status: int, code: str, next_step: str
) -> None:
    answer = read(server, bus, query, scope=scope)
    error = answer.json()
    assert (answer.status, error["code"]) == (status, code)
    assert next_step in error["text"]


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
def test_refused_write_names_the_error_and_writes_nothing(
    server: Server, name: str, client_of: Callable[[str], Client], body: Any, status: int, code: str
) -> None:
    client_of("alice").bus(name, int)
    answer = write(server, name, **body)
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert values(read(server, name)) == []


def test_type_mismatch_names_the_path(server: Server, name: str, client_of: Callable[[str], Client]) -> None:
    client_of("alice").bus(name, dict[str, int])
    error = write(server, name, value={"tea": "much"}).json()
    assert error["details"]["path"] == "$.tea"


def test_too_large_request_names_the_limit(server: Server, name: str) -> None:
    answer = write(server, name, value="x" * 1_100_000)  # over `batch_bytes` of this server
    assert (answer.status, answer.json()["details"]) == (413, {"limit": "batch_bytes"})


# --- access -----------------------------------------------------------------------------------------------------------


def test_unauthenticated_request_gets_401(server: Server, name: str) -> None:
    answer = server.request("GET", "ebus/api/buses")
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json()["code"] == "unauthenticated"


def test_user_scope_is_private_to_its_user(server: Server, name: str) -> None:
    write(server, name, scope="user", value="mine")
    assert values(read(server, name, scope="user")) == ["mine"]
    assert read(server, name, scope="user", user="bob").status == 404


def test_idempotency_key_means_something_else_to_each_user(server: Server, name: str) -> None:
    path, key = BUS.format(scope="server", name=name, what="messages"), {"Idempotency-Key": "order-2026-000017"}

    def post(user: str) -> int:
        answer = server.request("POST", path, user, body={"value": f"of {user}"}, headers=key)
        return int(answer.good().json()["offset"])

    assert [post("alice"), post("bob"), post("alice"), post("bob")] == [1, 2, 1, 2]
    assert values(read(server, name)) == ["of alice", "of bob"]


def test_authorizer_decides_who_reads_and_who_writes(server: Server, name: str) -> None:
    write(server, name, value=1)
    assert read(server, name, user="mallory").json()["code"] == "forbidden"
    assert values(read(server, name, user="carol")) == [1]
    assert write(server, name, user="carol", value=2).status == 403


def test_unauthorized_bus_is_neither_found_nor_listed(server: Server, client_of: Callable[[str], Client]) -> None:
    assert write(server, "board", value="alice's").status == 201
    assert read(server, "board", user="bob").status == 404

    def listed(user: str) -> set[str]:
        over_http = {
            bus["name"] for bus in server.request("GET", "ebus/api/buses?limit=500", user).good().json()["buses"]
        }
        assert over_http == {bus["name"] for bus in client_of(user).buses()}
        return over_http

    assert "board" in listed("alice")
    assert "board" not in listed("bob")


def test_list_describes_each_bus(server: Server, name: str, client_of: Callable[[str], Client]) -> None:
    kept = client_of("alice").bus(name, int, size=7)
    write(server, name, value=1)
    [bus] = server.request("GET", f"ebus/api/buses?find={name}", "bob").json()["buses"]
    assert bus["address"] == f"ebus:server/{name}"
    assert (bus["spec"]["type"], bus["spec"]["schema"], bus["spec"]["size"]) == ("int", {"type": "integer"}, 7)
    assert (bus["participants"], bus["last"]) == (1, 1)
    kept.close()


def test_write_with_a_cookie_needs_the_xsrf_token(server: Server, name: str) -> None:
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


def test_unsupported_method_lists_the_supported_ones(server: Server, name: str) -> None:
    answer = server.request("DELETE", BUS.format(scope="server", name=name, what="messages"), "alice")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST, OPTIONS")
