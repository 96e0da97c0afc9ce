"""A proxy in front of the server refuses everybody while the server restarts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import pytest

from ebus_jupyter.client.discover import remote_client
from ebus_jupyter.errors import Unauthenticated

from .test_killed_server import Server, server

__all__ = ["server"]  # a fixture


@contextlib.contextmanager
def refusing_proxy(url: str) -> Iterator[threading.Semaphore]:
    """Answer each request with 401 and a page of HTML, at the address of ``url``; the semaphore counts them."""
    refused = threading.Semaphore(0)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("Content-Length", "6")
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"<html>")
            refused.release()

        def log_message(self, *_: object) -> None:
            pass

    address = urlsplit(url)
    assert address.hostname and address.port
    with HTTPServer((address.hostname, address.port), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        yield refused
        proxy.shutdown()
        thread.join()


def test_client_outlives_a_401_during_a_restart(server: Server) -> None:
    with remote_client(server.url, "of-ann") as client:
        bus = client.bus("votes", size=1000)
        stream = bus.stream()
        bus.write("before").result(5)
        server.kill()
        with refusing_proxy(server.url) as refused:
            assert refused.acquire(timeout=10) and refused.acquire(timeout=10)
            assert client.status == "reconnecting"
            assert isinstance(client.why, Unauthenticated)
            ack = bus.write("meanwhile")
        server.start()
        assert ack.result(20) == 2
        assert stream.take(2, 5) == ["before", "meanwhile"]
        assert client.status == "live"


def test_first_401_closes_the_client_and_says_what_to_do(server: Server) -> None:
    server.kill()
    with refusing_proxy(server.url):
        client = remote_client(server.url, "of-ann")
        with pytest.raises(Unauthenticated, match="fresh one"):
            client.bus("votes")
        assert client.status == "closed"
    server.start()
