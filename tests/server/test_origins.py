"""Pages of foreign origins: refused at the socket, by the HTTP API, in event streams and in preflights, by one function."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from tornado.httputil import HTTPHeaders

from ebus_jupyter.server.access import is_origin_allowed

from .harness import Server
from .http_api import BUS
from .wire import Refused, Wire

FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://HOST.evil.example"},
    {"Origin": "http://evil@HOST"},
    {"Origin": "http://HOST:1"},
    {"Origin": "http://["},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://HOST, https://evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Referer": "https://evil.example/page"},
    {"Referer": "https://evil.example/", "Sec-Fetch-Site": "cross-site"},
    {"Referer": "http://["},
]
OWN = [
    {},
    {"Origin": "http://HOST"},
    {"Origin": "https://HOST"},
    {"Origin": "HTTP://HOST"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Referer": "http://HOST/lab"},
    {"Origin": "https://other.name", "Sec-Fetch-Site": "same-origin"},
]


def headers_of(given: dict[str, str], host: str) -> dict[str, str]:
    return {name: value.replace("HOST", host) for name, value in given.items()}


@pytest.mark.parametrize("given", FOREIGN, ids=str)
def test_foreign_page_is_not_allowed(given: dict[str, str]) -> None:
    headers = HTTPHeaders({"Host": "lab.example:8888", **headers_of(given, "lab.example:8888")})
    assert not is_origin_allowed(headers, {""}, "")
    assert is_origin_allowed(headers, {"", "*"}, "")


@pytest.mark.parametrize("given", OWN, ids=str)
def test_own_page_and_script_are_allowed(given: dict[str, str]) -> None:
    assert is_origin_allowed(HTTPHeaders({"Host": "lab.example", **headers_of(given, "lab.example")}), {""}, "")


def test_request_without_a_host_has_no_own_origin() -> None:
    assert not is_origin_allowed(HTTPHeaders({"Origin": "null"}), {""}, "")


@pytest.mark.parametrize("given", FOREIGN, ids=str)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "ebus/api/buses"),
        ("GET", "ebus/api/status"),
        ("GET", "ebus/api/health"),
        ("GET", "ebus/api/openapi.json"),
        ("GET", BUS.format(scope="server", name="origins", what="messages")),
        ("POST", BUS.format(scope="server", name="origins", what="messages")),
        ("GET", BUS.format(scope="server", name="origins", what="events")),
        ("OPTIONS", BUS.format(scope="server", name="origins", what="messages")),
    ],
)
def test_foreign_page_with_a_token_is_refused_by_http(
    server: Server, given: dict[str, str], method: str, path: str
) -> None:
    headers = headers_of(given, urlsplit(server.url).netloc)
    body = {"value": 1} if method == "POST" else None
    for user, query in (("alice", ""), (None, f"?token={server.token('alice')}")):
        answer = server.request(method, path + query, user, body=body, headers=headers)
        assert (answer.status, answer.json()["code"]) == (403, "forbidden")
        assert answer.headers["Access-Control-Allow-Origin"] is None
    assert server.request("GET", BUS.format(scope="server", name="origins", what="messages"), "alice").status == 404


@pytest.mark.parametrize("given", FOREIGN, ids=str)
def test_foreign_page_with_a_token_is_refused_at_the_socket(server: Server, given: dict[str, str]) -> None:
    headers = headers_of(given, urlsplit(server.url).netloc)
    with pytest.raises(Refused, match="forbidden"):
        Wire(server, auth=f"token {server.token('alice')}", origin=headers.pop("Origin", ""), headers=headers)


def test_page_of_an_allowed_origin_may_read_the_answers(server: Server) -> None:
    friend = {"Origin": "https://friend.example"}
    path = BUS.format(scope="server", name="friends", what="messages")
    preflight = server.request("OPTIONS", path, headers={**friend, "Access-Control-Request-Headers": "authorization"})
    assert preflight.status == 204
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    written = server.request("POST", path, "alice", body={"value": 1}, headers=friend)
    assert written.status == 201
    for answer in (preflight, written):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://friend.example"
