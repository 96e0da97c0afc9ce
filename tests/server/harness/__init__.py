"""A real Jupyter server in a process and folders of its own, with named users, for any test that needs one.

::

    with Server(tmp_path, users=("alice", "bob")) as server:
        kernel = server.start_kernel("alice")
        assert kernel.run("1 + 1").value == "2"
        cell = kernel.submit("import time; time.sleep(5)")     # returns at once; cell.result() waits for the end
        server.kill9(); server.start()                         # the same port, the same folders

Everything is synchronous, so that browser tests and asyncio tests (through `asyncio.to_thread`) can both use it.
"""

from .kernel import Cell, CellFailed, Kernel, Result
from .server import Server, ServerFailed
from .site import Answer, Site

__all__ = ["Answer", "Cell", "CellFailed", "Kernel", "Result", "Server", "ServerFailed", "Site"]
