"""Start-up time: importing the package, loading it in a notebook, loading it in a server."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile

from .measure import Row
from .peers import base, jupyter

IMPORT = "import time; t = time.perf_counter(); import ebus_jupyter; print(time.perf_counter() - t)"

# A class loads it at once: there the processor's time counts, of all threads of the kernel.
LOAD = (
    "import time; t, c = time.perf_counter(), time.process_time(); "
    "get_ipython().run_line_magic('load_ext', 'ebus_jupyter'); "
    "print(time.perf_counter() - t, time.process_time() - c)"
)

# The extension is added to a server that runs without it: start-up times of whole servers vary by more than it costs.
SERVER = """
import time
from jupyter_server.serverapp import ServerApp
app = ServerApp.instance()
app.config.ServerApp.jpserver_extensions = {"ebus_jupyter": False}
app.initialize(argv=["--ServerApp.port=0", "--ServerApp.open_browser=False", "--allow-root"])
manager = app.extension_manager
assert "ebus_jupyter" not in __import__("sys").modules
began = time.perf_counter()
manager.extensions.pop("ebus_jupyter", None)
assert manager.add_extension("ebus_jupyter", enabled=True)
manager.link_extension("ebus_jupyter")
manager.load_extension("ebus_jupyter")
spent = time.perf_counter() - began
assert "ebus" in app.web_app.settings
print(spent)
"""


def measure(times: int) -> Row:
    """The minimum of ``times`` runs (other load on the machine can only add to it); of CPU times, the median."""
    imported = min(_seconds(IMPORT) for _ in range(times))
    extension = min(_seconds(SERVER) for _ in range(times))
    loaded, used = [], []
    with jupyter.server(jupyter.UNBOUNDED.format(backend="sqlite")) as server:
        for _ in range(times):
            kernel = server.start_kernel(jupyter.USER)
            wall, cpu = map(float, kernel.run(LOAD).stdout.split())
            loaded.append(wall)
            used.append(cpu)
            kernel.shutdown()
    return {
        "import_ms": imported * 1e3,
        "load_ext_ms": min(loaded) * 1e3,
        "load_ext_cpu_ms": statistics.median(used) * 1e3,
        "server_extension_ms": extension * 1e3,
    }


def _seconds(code: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        env = base.environment(
            HOME=folder, JUPYTER_CONFIG_DIR=folder, JUPYTER_DATA_DIR=folder, JUPYTER_RUNTIME_DIR=folder
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, cwd=folder, capture_output=True, text=True, check=True
        )
    return float(done.stdout.split()[-1])
