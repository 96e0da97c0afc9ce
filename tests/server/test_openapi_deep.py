"""The HTTP API does what its OpenAPI document says, whatever is sent to it: a fuzzer that reads the document finds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig

from ebus_jupyter import __version__
from ebus_jupyter.server.openapi import document

from .harness import Server

# A write that has the right form may still not suit its bus: it has a key where there are none.
CONFIG = {"checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", 404, 409, 422]}}}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: the fuzzer makes many buses."""
    with Server(tmp_path_factory.mktemp("fuzzed"), base_url="/a/b/", config="c.EBus.backend = 'memory'\n") as server:
        yield server


schema = schemathesis.openapi.from_dict(document("/", __version__), config=SchemathesisConfig.from_dict(CONFIG))


@schema.parametrize()
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_operation_keeps_to_the_document(case: Any, fuzzed: Server) -> None:
    if case.path.endswith("/events"):  # the stream of a bus that is there has no end
        case.path_parameters["name"] = "silent"
    case.call_and_validate(
        base_url=fuzzed.url + "ebus/api", headers={"Authorization": f"Bearer {fuzzed.token('alice')}"}
    )


def test_the_document_is_for_those_who_are_known(fuzzed: Server) -> None:
    assert fuzzed.request("GET", "ebus/api/openapi.json").status == 401


def test_it_is_served_with_the_address_of_the_server(fuzzed: Server) -> None:
    assert fuzzed.request("GET", "ebus/api/openapi.json", "alice").good().json() == document("/a/b/", __version__)
    assert document("/a/b/", __version__)["servers"] == [{"url": "/a/b/ebus/api"}]
