"""How long it takes to begin: to import the package, to load it in a notebook, to load it in a server."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile

from .measure import Row
from .peers import base, jupyter

IMPORT = "import time; t = time.perf_counter(); import ebus_jupyter; print(time.perf_counter() - t)"

LOAD = (
    "import time; t = time.perf_counter(); get_ipython().run_line_magic('load_ext', 'ebus_jupyter'); "
    "print(time.perf_counter() - t)"
)

SERVER = """
import sys, time
from jupyter_server.serverapp import ServerApp
app = ServerApp.instance()
with_it = sys.argv[1] == "yes"
app.config.ServerApp.jpserver_extensions = {"ebus_jupyter": with_it}
began = time.perf_counter()
app.initialize(argv=["--ServerApp.port=0", "--ServerApp.open_browser=False", "--allow-root"])
print(time.perf_counter() - began)
"""


def measure(times: int) -> Row:
    imported = _median(times, IMPORT)
    with_it, without = (_median(times, SERVER, arg) for arg in ("yes", "no"))
    loaded = []
    with jupyter.server(jupyter.UNBOUNDED.format(backend="sqlite")) as server:
        for _ in range(times):
            kernel = server.start_kernel(jupyter.USER)
            loaded.append(float(kernel.run(LOAD).stdout))
            kernel.shutdown()
    return {
        "import_ms": imported * 1e3,
        "load_ext_ms": statistics.median(loaded) * 1e3,
        "server_extension_ms": (with_it - without) * 1e3,
    }


def _median(times: int, code: str, *args: str) -> float:
    return statistics.median(_seconds(code, *args) for _ in range(times))


def _seconds(code: str, *args: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        env = base.environment(
            HOME=folder, JUPYTER_CONFIG_DIR=folder, JUPYTER_DATA_DIR=folder, JUPYTER_RUNTIME_DIR=folder
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *args], env=env, cwd=folder, capture_output=True, text=True, check=True
        )
    return float(done.stdout.split()[-1])
