"""The OpenAPI document of the HTTP API, written by hand. A test with a schema-based fuzzer holds the handlers to it."""

from __future__ import annotations

from typing import Any

LIMIT = 1000
"""The maximum number of messages in one answer."""

LIMIT_DEFAULT = 100
"""The number of messages in one answer where the request gives none."""

BUSES = 500
"""The maximum number of buses in one answer."""

BUSES_DEFAULT = 100
"""The number of buses in one answer where the request gives none."""

Json = dict[str, Any]

_POSITION = r"^[0-9a-f]{1,64}:[0-9]{1,15}:([0-9a-f]{1,64}-[0-9]{1,16})?$"
_ADDRESS = r"^(ebus:(server|hub|user/[\w%]+)/[\w~:%.\-]+)?$"
_NAME = r"^\w[\w.:@\-]{0,127}$"


def document(base_url: str, version: str) -> Json:
    """Return the document for a server at ``base_url``."""
    bus = [
        _path("scope", {"enum": ["server", "user"]}, _SCOPE),
        _path("name", {"type": "string", "pattern": _NAME}, _NAMED),
    ]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ebus_jupyter",
            "version": version,
            "description": "Typed broadcast buses of a Jupyter server. Values that JSON can't represent (bytes, times, "
            'arrays …) are objects with one key that begins with $: {"$bytes": "aGk="}.',
            "license": {"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        },
        "servers": [{"url": base_url + "ebus/api"}],
        "security": [{"token": []}],
        "paths": {
            "/buses": {
                "get": {
                    "operationId": "list_buses",
                    "summary": "The named buses within reach, page by page",
                    "parameters": [
                        _query("after", {"type": "string", "pattern": _ADDRESS}, "The `next` of the page before."),
                        _query(
                            "limit",
                            {"type": "integer", "minimum": 1, "maximum": BUSES, "default": BUSES_DEFAULT},
                            "The maximum number of buses.",
                        ),
                        _query("find", {"type": "string"}, "Only the buses with each of these words in their address."),
                    ],
                    "responses": {
                        "200": _answer("Buses.", _ref("Buses")),
                        **_errors(400, 401, 403, 429, 503),
                    },
                },
            },
            "/buses/{scope}/{name}/messages": {
                "parameters": bus,
                "get": {
                    "operationId": "read_messages",
                    "summary": "Messages in the log, oldest first",
                    "parameters": [
                        _query(
                            "since",
                            _SINCE,
                            "Where to begin: start (the default), an offset to read after, -n for the last n messages, "
                            "or the `next` of an earlier answer, which detects that the bus was deleted and recreated.",
                        ),
                        _query(
                            "limit",
                            {"type": "integer", "minimum": 1, "maximum": LIMIT, "default": LIMIT_DEFAULT},
                            "The maximum number of messages.",
                        ),
                    ],
                    "responses": {"200": _answer("Messages.", _ref("Messages")), **_errors(400, 401, 403, 404, 503)},
                },
                "post": {
                    "operationId": "write_message",
                    "summary": "Write a message; creates the bus if it does not exist",
                    "parameters": [
                        {
                            "name": "Idempotency-Key",
                            "in": "header",
                            "description": "Any text that nobody else chooses, such as a fresh UUID. A write that is repeated "
                            "with the same key is answered with the first offset, and not written again.",
                            "schema": {"type": "string", "pattern": "^[!-~]{16,128}$"},
                        }
                    ],
                    "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("Write")}}},
                    "responses": {
                        "201": _answer("The write was accepted.", _object({"offset": _OFFSET})),
                        **_errors(400, 401, 403, 404, 409, 410, 413, 422, 429, 503),
                    },
                },
            },
            "/buses/{scope}/{name}/events": {
                "parameters": bus,
                "get": {
                    "operationId": "follow_messages",
                    "summary": "Messages as they are written, as server-sent events",
                    "description": "Each event's data is a Message. An event `lagged` says what was missed; an event "
                    "`closed` says that the bus has ended. The data of both is an Error.",
                    "parameters": [
                        _query("since", _SINCE, "Where to begin; by default with new messages."),
                        {
                            "name": "Last-Event-ID",
                            "in": "header",
                            "description": "The id of the last event seen; overrides `since`.",
                            "schema": {"type": "string"},
                        },
                    ],
                    "responses": {
                        "200": {
                            "description": "Events, until either side closes the stream.",
                            "content": {"text/event-stream": {"schema": {"type": "string"}}},
                        },
                        **_errors(400, 401, 403, 404, 503),
                    },
                },
            },
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The Jupyter server's token. Pages may use their cookie instead; a "
                    "write then needs the header X-XSRFToken.",
                }
            },
            "schemas": _SCHEMAS,
        },
    }


def _object(properties: Json, optional: tuple[str, ...] = ()) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _path(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _query(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _answer(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(*statuses: int) -> Json:
    return {str(status): _answer(_ERRORS[status], _ref("Error")) for status in statuses}


_ERRORS = {
    400: "A name, a scope, a parameter or the body is invalid.",
    401: "The server does not know the user.",
    403: "The user may not do that.",
    404: "The bus does not exist, or is not within reach.",
    409: "The expected offset is no longer the last one.",
    410: "The bus has just ended.",
    413: "The value is too large, or the bus is full.",
    422: "The value is not of the bus's type, or the bus's filter rejected it.",
    429: "Too many writes; Retry-After says when to try again.",
    503: "The broker, or the kernel that filters the bus, is not available; try again.",
}
_SCOPE = "The participants: everyone on this server, or the user; with a JupyterHub service also hub and hub:GROUP."
_NAMED = "The bus's name: letters, digits and any of . _ - : @"
_OFFSET = {"type": "integer", "minimum": 0}
_SINCE = {
    "type": "string",
    "anyOf": [{"const": "start"}, {"pattern": "^-?[0-9]{1,15}$"}, {"pattern": _POSITION}],
}
_NULLABLE_SCHEMA = {"type": ["object", "null"]}

_SCHEMAS: Json = {
    "Bus": _object(
        {
            "address": {"type": "string", "description": "Its URI, such as ebus:server/votes."},
            "scope": {"type": "string"},
            "name": {"type": "string"},
            "spec": _object(
                {
                    "type": {"type": "string", "description": "The name of the written type."},
                    "schema": _NULLABLE_SCHEMA | {"description": "JSON Schema of written values; null: any value."},
                    "emits": _NULLABLE_SCHEMA
                    | {"description": "JSON Schema of received values, where a filter changes them."},
                    "retain": {"enum": ["log", "latest", "keys"]},
                    "size": {"type": "integer", "minimum": 1},
                    "filter": {"type": ["string", "null"]},
                }
            ),
            "participants": {"type": "integer", "minimum": 0},
            "last": {
                "type": ["integer", "null"],
                "description": "The last offset; null while no participant has the bus open.",
            },
        }
    ),
    "Buses": _object(
        {
            "buses": {"type": "array", "items": _ref("Bus"), "maxItems": BUSES},
            "next": {
                "type": ["string", "null"],
                "description": "The `after` of the next request; null where there are no more. A page may be empty.",
            },
        }
    ),
    "Sender": _object(
        {
            "id": {"type": "string"},
            "kind": {"enum": ["kernel", "page", "server", "client"]},
            "user": {"type": "string"},
            "name": {"type": "string"},
            "kernel_id": {"type": "string"},
            "anonymous": {"const": True, "description": "The user stands for all holders of the server's token."},
        },
        optional=("anonymous",),
    ),
    "Message": _object(
        {
            "offset": _OFFSET,
            "id": {"type": "string"},
            "time": {"type": "number", "description": "Seconds since the epoch."},
            "sender": _ref("Sender"),
            "key": {"type": "string"},
            "deleted": {"const": True},
            "filtered_by": {
                "type": "string",
                "description": "Whose filter has seen the value, and may have changed it: user:NAME or server:NAME.",
            },
            "value": {"description": "The value."},
        },
        optional=("key", "deleted", "filtered_by"),
    ),
    "Messages": _object(
        {
            "messages": {"type": "array", "items": _ref("Message"), "maxItems": LIMIT},
            "next": {"type": "string", "pattern": _POSITION, "description": "The `since` of the next request."},
            "more": {"type": "boolean", "description": "True if more messages are available."},
            "missed": {
                "type": ["integer", "null"],
                "description": "How many messages after `since` are no longer in the log; null if unknown.",
            },
        }
    ),
    "Write": {
        "type": "object",
        "properties": {
            "value": {"description": "The value to write."},
            "key": {
                "type": ["string", "null"],
                "description": "The key to set, on a bus that retains by key, and only there.",
            },
            "deleted": {"type": "boolean", "default": False, "description": "Delete `key` instead of writing a value."},
            "to": {
                "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}],
                "description": "The only users who receive it.",
            },
            "expect": {
                "type": ["integer", "null"],
                "minimum": 0,
                "maximum": (1 << 53) - 1,
                "description": "Accept the write only if the last offset (of `key`; 0: none) is this one.",
            },
        },
        "additionalProperties": False,
        "oneOf": [
            {"required": ["value"], "properties": {"deleted": {"const": False}}},
            {
                "required": ["deleted", "key"],
                "properties": {"deleted": {"const": True}},
                "not": {"required": ["value"]},
            },
        ],
    },
    "Error": _object(
        {
            "code": {"type": "string", "description": "A stable code, the same as in Python and JavaScript."},
            "text": {"type": "string", "description": "What failed, why, and what to do next."},
            "details": {"type": "object"},
        }
    ),
}
