"""The HTTP API conforms to its OpenAPI document: a fuzzer that reads the document finds no contradiction."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig

from ebus_jupyter import __version__
from ebus_jupyter.server.openapi import document

from .harness import Server

# A valid write may still be refused by its bus, such as one with a key on a bus without keys.
CONFIG = {"checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", 404, 409, 422]}}}


schema = schemathesis.openapi.from_dict(document("/", __version__), config=SchemathesisConfig.from_dict(CONFIG))


@schema.parametrize()
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_operation_conforms_to_the_document(case: Any, server: Server) -> None:
    if case.path.endswith("/events"):  # the stream of an existing bus does not end
        case.path_parameters["name"] = "no-such-bus"
    case.call_and_validate(
        base_url=server.url + "ebus/api", headers={"Authorization": f"Bearer {server.token('alice')}"}
    )


def test_document_needs_authentication(server: Server) -> None:
    assert server.request("GET", "ebus/api/openapi.json").status == 401


def test_document_names_the_server_s_url(server: Server) -> None:
    assert server.request("GET", "ebus/api/openapi.json", "alice").good().json() == document("/deep/er/", __version__)
    assert document("/deep/er/", __version__)["servers"] == [{"url": "/deep/er/ebus/api"}]
