"""The server's process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .kernel import Kernel
from .site import Site

START_SECONDS = 60.0

EXTENSIONS = (
    "jupyter_lsp",
    "jupyter_server_terminals",
    "jupyterlab",
    "notebook",
    "notebook_shim",
    "voila.server_extension",
)
"""Server extensions of other packages in the tests' environment. Importing them takes as long as the rest of a start."""

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
    """The server did not start in time, or at all. The message is its output."""


class Server(Site):
    """One Jupyter server. `start` may be called again after `stop` or `kill9`: the port and the folders stay the same.

    Args:
        folder: Contains everything that the server reads and writes (config, data, runtime, notebooks).
        users: The names of those who may log in.
        app: The module to run: ``jupyter_server``, ``jupyterlab``, ``notebook`` …
        base_url: As `ServerApp.base_url`.
        config: Python text that is added to the server's configuration file, where ``c`` is defined.
        env: More environment variables; None removes one.
        args: More command-line arguments.
        tls: A certificate file and a key file.
        extensions: Those of `EXTENSIONS` that app "jupyter_server" loads. Other apps load all that are installed.
        python: The interpreter to run. Default: that of the tests.
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
        extensions: Iterable[str] = (),
        python: Path | str = sys.executable,
    ) -> None:
        super().__init__(base_url, tls)
        self.folder = Path(folder)
        self.users = tuple(users)
        self.app = app
        self.python = python
        self._disabled = set(EXTENSIONS) - set(extensions) if app == "jupyter_server" else set()
        self.log = self.folder / "server.log"
        self._config = config
        self._args = tuple(args)
        self._more_env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    # --- start and stop ------------------------------------------------------------------------------------------------

    def start(self) -> Server:
        """Start, and wait until the server answers.

        Raises:
            ServerFailed: The process ended, or did not answer in time.
        """
        for name in ("config", "data", "runtime", "notebooks", "ipython", "settings", "workspaces"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._write_config()
        for stale in (self.folder / "runtime").glob("jpserver-*.json"):
            stale.unlink()
        self._process = self._launch()
        try:
            self._await_answer()
        except BaseException:
            self.kill9()
            raise
        return self

    def stop(self, timeout: float = 20) -> None:
        """Shut down the server and its kernels, or kill the server after ``timeout`` seconds. Safe to call twice."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill9()
        self._process = None

    def kill9(self) -> None:
        """Kill the server without warning. Its kernels notice that by themselves, and end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> Server:
        """Stop, and start on the same port."""
        self.stop()
        return self.start()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def set_lab(self, what: str, **settings: Any) -> None:
        """Set JupyterLab's settings ``@jupyterlab/apputils-extension:what`` for all users."""
        folder = self.folder / "settings" / "@jupyterlab" / "apputils-extension"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{what}.jupyterlab-settings").write_text(json.dumps(settings))

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is down"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not stopped or killed since."""
        return self._process is not None

    def runs(self, pid: int) -> bool:
        """Return True if the server is running as process ``pid``."""
        return self._process is not None and self._process.pid == pid

    def output(self) -> str:
        """Return what the server has logged, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start_kernel(self, user: str, notebook: str | None = None, **model: Any) -> Kernel:
        """Start a kernel as ``user``: alone, or with a session for ``notebook`` as JupyterLab does."""
        if notebook is None:
            kernel_id = self.request("POST", "api/kernels", user, body=model or None).good().json()["id"]
        else:
            session = {"path": notebook, "name": notebook, "type": "notebook", "kernel": {"name": "python3", **model}}
            kernel_id = self.request("POST", "api/sessions", user, body=session).good().json()["kernel"]["id"]
        return Kernel(self, kernel_id, user)

    # --- the process ---------------------------------------------------------------------------------------------------

    def _launch(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [self.python, "-m", self.app, *self._args],
                cwd=self.folder / "notebooks",
                env=self._env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _write_config(self) -> None:
        users = {self.token(name): name for name in self.users}
        text = IDENTITY.format(users=users, token=f"shared-{self._salt}")
        text += f"c.ServerApp.ip, c.ServerApp.port, c.ServerApp.port_retries = '127.0.0.1', {self.port}, 0\n"
        text += f"c.ServerApp.base_url = {self.base_url!r}\n"
        text += "c.ServerApp.open_browser = False\nc.ServerApp.allow_root = True\n"
        text += f"c.ServerApp.jpserver_extensions.update({dict.fromkeys(sorted(self._disabled), False)!r})\n"
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
