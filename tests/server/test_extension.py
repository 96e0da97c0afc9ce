"""Discovery and configuration of the extension, and what it serves beside the WebSocket and the HTTP API."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import ebus_jupyter
from ebus_jupyter.core.protocol.frames import VERSION
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.server.extension import EBus

from .harness import Server
from .wire import Wire


def test_installing_the_package_enables_the_extension() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "jupyter", "server", "extension", "list"], capture_output=True, text=True, check=True
    )
    plain = re.sub(r"\x1b\[\d*m", "", listed.stdout + listed.stderr)
    lines = [line.strip() for line in plain.splitlines()]
    assert "ebus_jupyter enabled" in lines, "install the package into this environment"
    assert f"ebus_jupyter {ebus_jupyter.__version__} OK" in lines


@pytest.mark.parametrize("limit", msgspec.structs.fields(Limits), ids=lambda limit: limit.name)
def test_limit_is_configurable_and_documented(limit: msgspec.structs.FieldInfo) -> None:
    trait = EBus.class_traits(config=True)[limit.name]
    assert trait.default() == limit.default
    assert len(trait.help) > 20


def test_configured_limit_reaches_the_clients(server: Server) -> None:
    with Wire(server, auth=f"token {server.token('alice')}") as wire:
        assert wire.hello().limits["batch_bytes"] == 1_000_000


def test_status_needs_authentication_and_permission(server: Server) -> None:
    assert server.request("GET", "ebus/api/status").status == 401
    assert server.request("GET", "ebus/api/status", "mallory").status == 403
    status = server.request("GET", "ebus/api/status", "carol").good().json()
    assert status == {"version": ebus_jupyter.__version__, "protocol": VERSION}


def test_kernel_connects_over_tls_with_the_servers_certificate(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.fail("making a certificate needs the command openssl")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=elsewhere.example -keyout KEY -out CERT"
    names = {"KEY": str(key), "CERT": str(certificate)}
    subprocess.run([names.get(word, word) for word in command.split()], capture_output=True, check=True)
    with Server(tmp_path / "server", tls=(certificate, key)) as server:
        kernel = server.start_kernel("alice")
        printed = kernel.run("import os; print(*(os.environ['EBUS_' + name] for name in ('URL', 'CERT', 'TOKEN')))")
        url, trusted, secret = printed.stdout.split()
        assert (url, trusted) == (server.url, str(certificate))
        with Wire(server, auth=f"ebus {secret}") as wire:
            assert wire.hello().you.kernel_id == kernel.id


# --- the pages' client -------------------------------------------------------------------------------------------------


def test_client_module_is_public(server: Server) -> None:
    answer = server.request("GET", "ebus/client.js").good()
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.body


def test_client_module_is_cached_for_good_only_with_a_version(server: Server) -> None:
    plain = server.request("GET", "ebus/client.js").good()
    assert plain.headers["Cache-Control"] == "no-cache"
    again = server.request("GET", "ebus/client.js", headers={"If-None-Match": plain.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    versioned = server.request("GET", "ebus/client.js?v=abc").good()
    assert "immutable" in versioned.headers["Cache-Control"]


@pytest.mark.parametrize("path", ["ebus/nothing.js", "ebus/..%2f__init__.js", "ebus/client.py", "ebus/"])
def test_other_files_are_not_served(server: Server, path: str) -> None:
    assert server.request("GET", path).status in (403, 404)
