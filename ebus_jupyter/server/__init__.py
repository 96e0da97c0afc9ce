"""The broker inside a Jupyter server: an extension that installing the package enables.

`extension` holds its configuration and its life, `handlers` what it answers over HTTP and WebSocket, `kernels` how a
kernel gets its token. Kernels never import this; importing it without the rest costs nothing.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Tell jupyter_server where the extension is."""
    from .extension import EBus

    return [{"module": "ebus_jupyter.server.extension", "app": EBus}]
