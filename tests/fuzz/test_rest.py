"""Whatever a request holds, the server answers it in JSON, is not to blame, and holds no more memory afterwards."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.harness import Server

GROWTH_BYTES = 96 << 20
"""What a server may hold more after all of it: the values that it keeps, and what Python does not give back."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda items: (
        st.lists(items, max_size=4)
        | st.dictionaries(
            st.text(max_size=5)
            | st.sampled_from(["$bytes", "$time", "$array", "$float", "$pairs", "$map", "$msgpack"]),
            items,
            max_size=3,
        )
    ),
    max_leaves=10,
)
WRITES = st.fixed_dictionaries(
    {},
    optional={
        "value": JSON,
        "key": st.one_of(st.none(), st.text(max_size=5), st.just("k" * 500), st.integers()),
        "deleted": st.booleans(),
        "to": st.one_of(st.none(), st.text(max_size=5), st.lists(st.text(max_size=5), max_size=3)),
        "expect": st.one_of(st.integers(), st.floats(), st.text(max_size=2)),
        "other": JSON,
    },
)
LARGE = st.sampled_from(
    [
        b"[" * 100_000,
        b'{"value":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"value":[' + b"1," * 100_000 + b"1]}",
        b'{"value":{"$array":{"dtype":"<f8","shape":[' + b"9223372036854775807," * 9999 + b'1],"data":""}}}',
        b'{"value":{"' + b"k" * 100_000 + b'":[' + b"[]," * 5000 + b"1]}}",
        b'{"value":1' + b"0" * 5000 + b"}",
    ]
)
BODIES = st.one_of(st.builds(lambda form: json.dumps(form).encode(), WRITES | JSON), st.binary(max_size=80), LARGE)
NAMES = st.one_of(
    st.sampled_from(["fuzz", "fuzz", "a" * 300, "..", "%00", "~x", "é", "a%2Fb"]), st.text(min_size=1, max_size=6)
)
SCOPES = st.sampled_from(["server", "server", "user", "kernel", "hub", "hub:x", "galaxy", "%ff"])
QUERIES = st.dictionaries(
    st.sampled_from(["since", "limit", "token", "x"]),
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(["0", "-1", "start", "9" * 400, "1e5", "²", "abc:5:x-1", ":", "1" * 20]),
    ),
    max_size=3,
)
KEYS = st.one_of(st.just(""), st.sampled_from(["x" * 15, "x" * 16, "y" * 129, "é" * 16]), st.text(max_size=20))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("fuzz"), config="c.EBus.batch_bytes = 1_000_000\n") as running:
        yield running


@pytest.fixture(scope="module")
def memory(server: Server) -> Iterator[None]:
    """Checks what the server holds after the module."""
    process = psutil.Process(server.pid)
    before = process.memory_info().rss
    yield
    assert process.memory_info().rss - before < GROWTH_BYTES


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"]),
    scope=SCOPES,
    name=NAMES,
    what=st.sampled_from(["/messages", "/messages", "/messages", "", "/other"]),
    query=QUERIES,
    body=BODIES,
    key=KEYS,
)
def test_requests(
    server: Server,
    memory: None,
    method: str,
    scope: str,
    name: str,
    what: str,
    query: dict[str, str],
    body: bytes,
    key: str,
) -> None:
    bus = f"/ebus/api/buses/{scope}/{urllib.parse.quote(name, safe='%')}"
    path = f"{bus}{what}?{urllib.parse.urlencode(query)}"
    headers: dict[str, Any] = {**server.headers("alice"), "Content-Type": "application/json"}
    if (key and key.isprintable() and key.isascii()) or "é" in key:
        headers["Idempotency-Key"] = key.encode("utf-8")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(method, path, body if method in ("POST", "PUT") else None, headers)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    assert answer.status < 500, (answer.status, said[:500])
    if what == "/messages" and method in ("GET", "POST") and answer.status not in (404, 301, 302):
        assert (answer.getheader("Content-Type") or "").startswith("application/json"), (answer.status, path, method)
        found = json.loads(said)
        assert ("code" in found) == (answer.status >= 400), found
        assert len(said) < 4_000_000
        if answer.status >= 400:
            assert len(found["text"]) < 2000
