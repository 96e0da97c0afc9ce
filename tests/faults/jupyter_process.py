"""Starts Jupyter servers by forking: what takes long, the imports, is done once.

``python -m tests.faults.jupyter_process`` reads a JSON object for each server (``folder``, ``env``, ``log``) and answers with
its process id; once the server has ended, with its id and status. In a server that it starts

- the wall clock is ahead by what the file ``EBUS_FAULTS_CLOCK`` says (eight bytes, a double), and
- root may not write what its mode forbids, as nobody else may.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import select
import signal
import struct
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2
CAPABILITY_VERSION_3 = 0x20080522

_now = time.time
_ahead: mmap.mmap | None = None


def _wall_clock() -> float:
    return _now() if _ahead is None else _now() + struct.unpack("d", _ahead[:8])[0]


time.time = _wall_clock  # before anything takes it

# What a server imports, and its kernels' manager.
import ipykernel.kernelspec  # noqa: E402, F401
import jupyter_client.manager  # noqa: E402, F401
from jupyter_server.serverapp import ServerApp  # noqa: E402

import ebus_jupyter.backends.sqlite  # noqa: E402
import ebus_jupyter.server.extension  # noqa: E402, F401


def obey_modes() -> None:
    """Give up root's right to write read-only files."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    if libc.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    for i in range(3):
        data[i] &= ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH) & 0xFFFFFFFF
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def serve(folder: str, env: dict[str, str], log: str) -> None:
    """Be a server, to its end."""
    global _ahead
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(Path(folder) / "notebooks")
    with Path(env["EBUS_FAULTS_CLOCK"]).open("r+b") as clock:
        _ahead = mmap.mmap(clock.fileno(), 8)
    obey_modes()
    sys.argv = ["jupyter-server"]
    ServerApp.launch_instance([])


def main() -> None:
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 1000)
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if not pid:
                    break
                print(json.dumps([pid, os.waitstatus_to_exitcode(status)]), flush=True)
        if 0 in ready:
            line = sys.stdin.readline()
            if not line:
                return
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                code = 1
                try:
                    serve(**json.loads(line))
                    code = 0
                except SystemExit as end:
                    code = end.code if isinstance(end.code, int) else 0
                finally:
                    os._exit(code)
            print(json.dumps([pid, None]), flush=True)


if __name__ == "__main__":
    main()
