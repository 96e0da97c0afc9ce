"""A real Jupyter server in a process and folders of its own, with named users, for any test that needs one.

::

    with Server(tmp_path, users=("alice", "bob")) as server:
        kernel = server.start_kernel("alice")
        assert kernel.run("1 + 1").value == "2"
        cell = kernel.submit("import time; time.sleep(5)")     # runs on; cell.result() waits for it
        server.kill9(); server.start()                         # the same port, the same folders

Everything is synchronous, so that browser tests and asyncio tests (through `asyncio.to_thread`) can use it alike.
A user's token is made up from the name (`server.token("alice")`); the server maps it back by an identity provider.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

START_SECONDS = 60.0

IDENTITY = """
from jupyter_server.auth.identity import IdentityProvider, User

USERS = {users!r}

class NamedUsers(IdentityProvider):
    async def get_user_token(self, handler):
        name = USERS.get(self.get_token(handler))
        return User(name, name.title(), name.title()) if name else None

c.ServerApp.identity_provider_class = NamedUsers
c.IdentityProvider.token = {token!r}
"""


class ServerFailed(Exception):
    """The server did not start, or not in time; its output is the message."""


class CellFailed(Exception):
    """The cell raised; the message is its traceback's last line, `result` holds what it showed."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"{result.error}\n{result.stderr}")
        self.result = result


@dataclass
class Result:
    """What a cell showed. ``value`` is the text of its last expression, ``data`` all of that expression's forms."""

    stdout: str = ""
    stderr: str = ""
    value: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    displays: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""


class Server:
    """One Jupyter server. ``start`` may be called again after ``stop`` or ``kill9``: the port and the folders stay.

    Args:
        folder: Where everything lives that the server reads and writes (config, data, runtime, notebooks).
        users: The names of those who may log in.
        app: The module to run: ``jupyter_server``, ``jupyterlab``, ``notebook`` …
        base_url: As `ServerApp.base_url`.
        config: Python text that is added to the server's configuration file (``c`` is there).
        env: More environment variables; None removes one.
        args: More command-line arguments.
        tls: A certificate file and a key file.
        python: Whose packages it runs with. Default: those of the tests.
    """

    def __init__(
        self,
        folder: Path,
        *,
        users: Iterable[str] = ("alice", "bob"),
        app: str = "jupyter_server",
        base_url: str = "/",
        config: str = "",
        env: Mapping[str, str | None] | None = None,
        args: Iterable[str] = (),
        tls: tuple[Path, Path] | None = None,
        python: Path | str = sys.executable,
    ) -> None:
        self.folder = Path(folder)
        self.users = tuple(users)
        self.app = app
        self.base_url = base_url if base_url.endswith("/") else base_url + "/"
        self.tls = tls
        self.python = python
        self.port = 0
        self.log = self.folder / "server.log"
        self._salt = secrets.token_hex(8)
        self._config = config
        self._args = tuple(args)
        self._more_env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> Server:
        """Start, and return when the server answers.

        Raises:
            ServerFailed: It ended at once, or did not answer in time.
        """
        for name in ("config", "data", "runtime", "notebooks", "ipython", "settings", "workspaces"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._write_config()
        for stale in (self.folder / "runtime").glob("jpserver-*.json"):
            stale.unlink()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [self.python, "-m", self.app, *self._args],
                cwd=self.folder / "notebooks",
                env=self._env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._await_answer()
        except BaseException:
            self.kill9()
            raise
        return self

    def stop(self, timeout: float = 20) -> None:
        """Stop in good order, kernels and all; does nothing where the server is down."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill9()
        self._process = None

    def kill9(self) -> None:
        """Kill the server (not its kernels: they notice by themselves) without any warning."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> Server:
        """Stop and start on the same port."""
        self.stop()
        return self.start()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def set_lab(self, what: str, **settings: Any) -> None:
        """Change JupyterLab's settings of its application (``@jupyterlab/apputils-extension:what``), for everyone."""
        folder = self.folder / "settings" / "@jupyterlab" / "apputils-extension"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{what}.jupyterlab-settings").write_text(json.dumps(settings))

    # --- where and who ----------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where the server is, with its base URL and a slash at the end."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{self.base_url}"

    @property
    def ws_url(self) -> str:
        """The bus's socket."""
        return "ws" + self.url[4:] + "ebus/ws"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is down"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not stopped or killed since."""
        return self._process is not None

    def runs(self, pid: int) -> bool:
        """Whether the process that runs now is ``pid``."""
        return self._process is not None and self._process.pid == pid

    def token(self, user: str) -> str:
        """The token by which ``user`` logs in; a link with ``?token=`` logs a browser in."""
        return f"{user}-{self._salt}"

    def headers(self, user: str | None) -> dict[str, str]:
        return {"Authorization": f"token {self.token(user)}"} if user else {}

    def output(self) -> str:
        """What the server has logged so far, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

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
        """One HTTP request; an error status is an answer too."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path.lstrip("/"), data, {**self.headers(user), **(headers or {})}, method=method
        )
        try:
            with self._opener().open(request, timeout=timeout) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    # --- kernels ----------------------------------------------------------------------------------------------------

    def start_kernel(self, user: str, notebook: str | None = None, **model: Any) -> Kernel:
        """Start a kernel as ``user``: by itself, or with a session for ``notebook`` as JupyterLab does."""
        if notebook is None:
            kernel_id = self.request("POST", "api/kernels", user, body=model or None).good().json()["id"]
        else:
            session = {"path": notebook, "name": notebook, "type": "notebook", "kernel": {"name": "python3", **model}}
            kernel_id = self.request("POST", "api/sessions", user, body=session).good().json()["kernel"]["id"]
        return Kernel(self, kernel_id, user)

    # --- how --------------------------------------------------------------------------------------------------------

    def _write_config(self) -> None:
        users = {self.token(name): name for name in self.users}
        text = IDENTITY.format(users=users, token=f"shared-{self._salt}")
        text += f"c.ServerApp.ip, c.ServerApp.port, c.ServerApp.port_retries = '127.0.0.1', {self.port}, 0\n"
        text += f"c.ServerApp.base_url = {self.base_url!r}\n"
        text += "c.ServerApp.open_browser = False\nc.ServerApp.allow_root = True\n"
        if self.tls:
            text += f"c.ServerApp.certfile = {str(self.tls[0])!r}\nc.ServerApp.keyfile = {str(self.tls[1])!r}\n"
        (self.folder / "config" / "jupyter_server_config.py").write_text(text + self._config)
        quiet = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
        self.set_lab("notification", **quiet)

    def _env(self) -> dict[str, str]:
        foreign = ("JUPYTER", "JPY_", "EBUS_", "COLAB_", "VOILA_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        env |= {
            "JUPYTER_CONFIG_DIR": str(self.folder / "config"),
            "JUPYTER_DATA_DIR": str(self.folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.folder / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(self.folder / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(self.folder / "workspaces"),
            "IPYTHONDIR": str(self.folder / "ipython"),
            "PYTHONUNBUFFERED": "1",
        }
        for name, value in self._more_env.items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value
        return env

    def _await_answer(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + START_SECONDS
        info = self.folder / "runtime" / f"jpserver-{process.pid}.json"
        while time.monotonic() < deadline:
            if process.poll() is not None:
                self._process = None
                raise ServerFailed(f"the server ended with status {process.returncode}:\n{self.output()[-4000:]}")
            with contextlib.suppress(OSError, ValueError, KeyError):
                self.port = json.loads(info.read_text())["port"] or self.port
                if self.request("GET", "api/status", self.users[0], timeout=5).status == 200:
                    return
            time.sleep(0.05)
        raise ServerFailed(f"the server did not answer within {START_SECONDS:.0f} s:\n{self.output()[-4000:]}")

    def _opener(self) -> urllib.request.OpenerDirector:
        here = urllib.request.ProxyHandler({})  # never through a proxy that the environment names
        if self.tls is None:
            return urllib.request.build_opener(here)
        context = ssl.create_default_context(cafile=str(self.tls[0]))
        context.check_hostname = False
        return urllib.request.build_opener(here, urllib.request.HTTPSHandler(context=context))


@dataclass
class Answer:
    """What came back for an HTTP request. ``headers`` is case-insensitive."""

    status: int
    headers: Any
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def good(self) -> Answer:
        """This answer, if it is no error's."""
        assert self.status < 400, f"{self.status}: {self.body[:1000]!r}"
        return self


class Kernel:
    """A kernel of that server, driven as a notebook's page drives it. For one thread at a time."""

    def __init__(self, server: Server, kernel_id: str, user: str) -> None:
        self.server = server
        self.id = kernel_id
        self.user = user
        self._session = uuid.uuid4().hex
        self._socket: websocket.WebSocket | None = None
        self._cells: dict[str, Cell] = {}

    def run(self, code: str, timeout: float = 60) -> Result:
        """Run a cell to its end.

        Raises:
            CellFailed: It raised.
            TimeoutError: It did not end in time.
        """
        return self.submit(code).result(timeout)

    def submit(self, code: str) -> Cell:
        """Begin a cell, and come back at once."""
        message_id = uuid.uuid4().hex
        header = {
            "msg_id": message_id,
            "msg_type": "execute_request",
            "session": self._session,
            "username": self.user,
            "date": "",
            "version": "5.3",
        }
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": False}
        cell = self._cells[message_id] = Cell(self)
        message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
        self._connected().send(json.dumps(message))
        return cell

    def interrupt(self) -> None:
        self._act("POST", "/interrupt")

    def restart(self) -> None:
        """Restart the kernel; what ran before is forgotten."""
        self._act("POST", "/restart")
        self._cells.clear()
        self.close()

    def shutdown(self) -> None:
        self.close()
        self._act("DELETE")

    def close(self) -> None:
        """Let go of the socket; the kernel runs on."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def state(self) -> str:
        """What the server says that the kernel is doing: "idle", "busy", "starting" …"""
        return str(self.server.request("GET", f"api/kernels/{self.id}", self.user).json()["execution_state"])

    def _act(self, method: str, action: str = "") -> None:
        self.server.request(method, f"api/kernels/{self.id}{action}", self.user, timeout=90).good()

    def _connected(self) -> websocket.WebSocket:
        if self._socket is None:
            url = "ws" + self.server.url[4:] + f"api/kernels/{self.id}/channels?session_id={self._session}"
            cert = {"ca_certs": str(self.server.tls[0]), "check_hostname": False} if self.server.tls else None
            self._socket = websocket.create_connection(
                url,
                header=self.server.headers(self.user),
                timeout=60,
                sslopt=cert,
                suppress_origin=True,
                http_no_proxy=["127.0.0.1"],
            )
        return self._socket

    def pump(self, until: Callable[[], bool], timeout: float) -> None:
        """Read what the kernel says until ``until()``.

        Raises:
            TimeoutError: It did not come true in time.
        """
        socket, deadline = self._connected(), time.monotonic() + timeout
        while not until():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"kernel {self.id} did not finish within {timeout} s")
            socket.settimeout(left)
            try:
                said = socket.recv()
                if isinstance(said, bytes):  # with buffers: for a widget in a page, which this is not
                    continue
                message = json.loads(said)
            except websocket.WebSocketTimeoutException:
                continue
            cell = self._cells.get(message["parent_header"].get("msg_id", ""))
            if cell is not None:
                cell.hear(message["msg_type"], message["content"])


class Cell:
    """A cell that was begun."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._result = Result()
        self._replied = self._idle = False

    @property
    def done(self) -> bool:
        """Whether it has ended, as far as was read (see `Kernel.pump`)."""
        return self._replied and self._idle

    @property
    def so_far(self) -> Result:
        return self._result

    def result(self, timeout: float = 60) -> Result:
        """Wait for its end. Raises as `Kernel.run` does."""
        self._kernel.pump(lambda: self.done, timeout)
        if self._result.error:
            raise CellFailed(self._result)
        return self._result

    def until_printed(self, text: str, timeout: float = 60) -> None:
        """Wait until its output holds ``text``; for a cell that goes on after saying that it has begun."""
        self._kernel.pump(lambda: self.done or text in self._result.stdout, timeout)
        assert text in self._result.stdout, self._result

    def hear(self, kind: str, content: dict[str, Any]) -> None:
        result = self._result
        if kind == "stream":
            setattr(result, content["name"], getattr(result, content["name"]) + content["text"])
        elif kind == "execute_result":
            result.data = content["data"]
            result.value = content["data"].get("text/plain")
        elif kind == "display_data":
            result.displays.append(content["data"])
        elif kind == "error":
            result.error = f"{content['ename']}: {content['evalue']}"
        elif kind == "execute_reply":
            self._replied = True
        elif kind == "status" and content["execution_state"] == "idle":
            self._idle = True
