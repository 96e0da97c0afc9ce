"""How long it takes to begin: to import the package, to load it in a notebook, to load it in a server."""

from __future__ import annotations

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
    """The least of so many times: what else the machine does can only add. With the extension and without, in turns."""
    imported = min(_seconds(IMPORT) for _ in range(times))
    pairs = [(_seconds(SERVER, "yes"), _seconds(SERVER, "no")) for _ in range(times)]
    with_it, without = (min(side) for side in zip(*pairs, strict=True))
    loaded = []
    with jupyter.server(jupyter.UNBOUNDED.format(backend="sqlite")) as server:
        for _ in range(times):
            kernel = server.start_kernel(jupyter.USER)
            loaded.append(float(kernel.run(LOAD).stdout))
            kernel.shutdown()
    return {
        "import_ms": imported * 1e3,
        "load_ext_ms": min(loaded) * 1e3,
        "server_extension_ms": (with_it - without) * 1e3,
    }


def _seconds(code: str, *args: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        env = base.environment(
            HOME=folder, JUPYTER_CONFIG_DIR=folder, JUPYTER_DATA_DIR=folder, JUPYTER_RUNTIME_DIR=folder
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *args], env=env, cwd=folder, capture_output=True, text=True, check=True
        )
    return float(done.stdout.split()[-1])
