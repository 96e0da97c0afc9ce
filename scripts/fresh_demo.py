"""Does with ``make demo`` what a person does: opens the printed link, and runs the notebook's cells in a kernel.

.venv/bin/python scripts/fresh_demo.py LINK
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import websocket  # jupyter-server brings it along

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
START_SECONDS = 120
CELL_SECONDS = 60


class Demo:
    """The server of ``make demo``.

    Args:
        link: What ``make demo`` printed.
    """

    def __init__(self, link: str) -> None:
        parts = urllib.parse.urlsplit(link)
        self.link = link
        self.url = f"{parts.scheme}://{parts.netloc}/"
        self.notebook = parts.path.rpartition("/")[2]
        self.headers = {"Authorization": f"token {urllib.parse.parse_qs(parts.query)['token'][0]}"}

    def get(self, path: str, body: Any = None) -> str:
        """The answer's text, of a POST if there is a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(urllib.parse.urljoin(self.url, path), data, self.headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
            return str(response.read().decode())

    def open_link(self) -> None:
        """Open JupyterLab's page, as soon as the server answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                page = self.get(self.link)
                break
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        assert "jupyter-config-data" in page, f"the link opens something else than JupyterLab: {page[:500]}"

    def run_notebook(self) -> int:
        """Run all code cells in a new kernel; their number."""
        kernel = {"name": "python3"}
        session = {"path": self.notebook, "name": self.notebook, "type": "notebook", "kernel": kernel}
        kernel_id = json.loads(self.get("api/sessions", session))["kernel"]["id"]
        socket = websocket.create_connection(
            f"ws{self.url[4:]}api/kernels/{kernel_id}/channels",
            header=self.headers,
            timeout=CELL_SECONDS,
            suppress_origin=True,
            http_no_proxy=["127.0.0.1"],
        )
        cells = json.loads((NOTEBOOKS / self.notebook).read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        for source in code:
            run_cell(socket, source)
        socket.close()
        return len(code)


def run_cell(socket: websocket.WebSocket, source: str) -> None:
    """Run one cell to its end; raises `AssertionError` with its traceback if it fails."""
    message_id = uuid.uuid4().hex
    header = {"msg_id": message_id, "msg_type": "execute_request", "session": "fresh", "username": "", "version": "5.3"}
    content = {"code": source, "silent": False, "store_history": True, "allow_stdin": False}
    message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
    socket.send(json.dumps(message))
    while True:
        said = socket.recv()
        if isinstance(said, bytes):
            continue
        reply = json.loads(said)
        if reply["msg_type"] == "execute_reply" and reply["parent_header"].get("msg_id") == message_id:
            assert reply["content"]["status"] == "ok", "\n".join(reply["content"]["traceback"])
            return


def main() -> None:
    demo = Demo(sys.argv[1])
    demo.open_link()
    print("  the link opens JupyterLab")
    status = json.loads(demo.get("ebus/api/status"))
    demo.get("ebus/client.js")
    print(f"  the server extension answers (version {status['version']}), and serves the page's client")
    cells = demo.run_notebook()
    assert '"votes"' in demo.get("ebus/api/buses"), "the server does not have the bus that the notebook opened"
    print(f"  a kernel ran the {cells} cells of {demo.notebook}, and the server has the bus that they opened")


if __name__ == "__main__":
    main()
