"""A Jupyter server seen from outside: its URLs, its users' tokens, HTTP requests and WebSockets."""

from __future__ import annotations

import json
import secrets
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import websocket


@dataclass
class Answer:
    """The response to an HTTP request. ``headers`` is case-insensitive."""

    status: int
    headers: Any
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def good(self) -> Answer:
        """Return this answer; fail if its status is an error."""
        assert self.status < 400, f"{self.status}: {self.body[:1000]!r}"
        return self


class Site:
    """A server on this machine.

    A user's token is derived from the name (`token`); the server's identity provider maps it back.

    Args:
        base_url: As `ServerApp.base_url`.
        tls: A certificate file and a key file.
    """

    def __init__(self, base_url: str = "/", tls: tuple[Path, Path] | None = None) -> None:
        self.base_url = base_url if base_url.endswith("/") else base_url + "/"
        self.tls = tls
        self.port = 0
        self._salt = secrets.token_hex(8)

    @property
    def url(self) -> str:
        """The server's URL, with its base URL and a slash at the end."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{self.base_url}"

    @property
    def ws_url(self) -> str:
        """The URL of the bus's WebSocket."""
        return "ws" + self.url[4:] + "ebus/ws"

    def token(self, user: str) -> str:
        """Return the token of ``user``; a link with ``?token=`` logs a browser in."""
        return f"{user}-{self._salt}"

    def headers(self, user: str | None) -> dict[str, str]:
        return {"Authorization": f"token {self.token(user)}"} if user else {}

    def request(
        self,
        method: str,
        path: str,
        user: str | None = None,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Answer:
        """Send one HTTP request. An error status is returned too."""
        try:
            with self.stream(method, path, user, body=body, headers=headers, timeout=timeout) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def stream(
        self,
        method: str,
        path: str,
        user: str | None = None,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Any:
        """Send one HTTP request and return the open response. Raises `urllib.error.HTTPError` for an error status."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path.lstrip("/"), data, {**self.headers(user), **(headers or {})}, method=method
        )
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]  # ignore the environment's proxy
        if self.tls is not None:
            context = ssl.create_default_context(cafile=str(self.tls[0]))
            context.check_hostname = False
            handlers.append(urllib.request.HTTPSHandler(context=context))
        return urllib.request.build_opener(*handlers).open(request, timeout=timeout)

    def websocket(
        self, url: str, headers: Mapping[str, str], *, origin: str = "", timeout: float = 60
    ) -> websocket.WebSocket:
        """Open a WebSocket of this server."""
        return websocket.create_connection(
            url,
            header=dict(headers),
            origin=origin or None,
            suppress_origin=not origin,
            timeout=timeout,
            sslopt={"ca_certs": str(self.tls[0]), "check_hostname": False} if self.tls else None,
            http_no_proxy=["127.0.0.1"],
        )
