"""The broker inside a Jupyter server: an extension that is enabled by installing the package.

| module | |
| --- | --- |
| `extension` | configuration, start and stop |
| `services` | the parts of the extension that request handlers may use |
| `handlers`, `outlet` | the WebSocket, and how frames are written to it; the pages' client code |
| `rest`, `events`, `rest_handler`, `openapi` | the HTTP API, on a `request_client` |
| `access`, `tokens` | who connects and what they may do; the kernels' tokens |
| `kernels` | the kernels' environment and activity |
| `participants`, `whiteboard` | code that participates in the server |
| `storage` | the file of the named buses |

Kernels never import this package, and importing it alone imports none of these modules.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Tell jupyter_server where the extension is."""
    from .extension import EBus

    return [{"module": "ebus_jupyter.server.extension", "app": EBus}]
