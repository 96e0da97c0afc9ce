"""People in front of a real JupyterLab: one browser context for each person."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from playwright.sync_api import Error as PlaywrightError

from tests.server.harness import Server

READY_MS = 60_000
"""How long JupyterLab may take to open a notebook whose kernel answers, on a busy machine."""

WAIT_SECONDS = 60.0
"""How long a condition may take to become true, on a busy machine."""

ARTIFACTS = Path(__file__).parent / "artifacts"

HIDE_DIALOGS = """
// JupyterLab reports a lost server or kernel in modal dialogs. They appear whenever a request of its own fails, so a test
// cannot wait for them: they lie over the notebook, take the focus, and scroll to what had it when they are closed.
const sheet = new CSSStyleSheet();
sheet.replaceSync(".jp-Dialog { display: none !important }");
document.adoptedStyleSheets.push(sheet);
"""

NOTEBOOK = """(path) => [...(window.jupyterapp?.shell?.widgets("main") ?? [])].find(
  (widget) => widget.context?.path.split(":").pop() === path
)"""
"""The widget of a notebook. jupyter-collaboration puts a drive's name in front of the path."""

READY = f"""(path) => {{
  const shell = window.jupyterapp?.shell;
  const widget = ({NOTEBOOK})(path);
  if (!widget) return false;
  if (shell.currentWidget !== widget) {{
    shell.activateById(widget.id);
    return false;
  }}
  const context = widget.sessionContext;
  const kernel = context?.session?.kernel;
  return Boolean(context?.isReady && kernel && kernel.connectionStatus === "connected" && kernel.status === "idle");
}}"""

# Playwright waits for a promise of the page without a limit, and a server that has died settles none.
WITHIN = f"""async (work, what) => {{
  const late = new Promise((_, fail) => setTimeout(() => fail(new Error(`${{what}}: no answer`)), {READY_MS}));
  return await Promise.race([work, late]);
}}"""

RUN = f"""async ([path, body, last, wait]) => {{
  const kernel = ({NOTEBOOK})(path).sessionContext.session.kernel;
  const future = kernel.requestExecute({{
    code: body, store_history: false, user_expressions: last ? {{ value: last }} : {{}}, stop_on_error: false,
  }});
  if (!wait) return null;
  const reply = (await ({WITHIN})(future.done, body || last)).content;
  if (reply.status !== "ok") throw new Error(`${{reply.ename}}: ${{reply.evalue}}`);
  const value = reply.user_expressions?.value;
  if (value?.status === "error") throw new Error(`${{value.ename}}: ${{value.evalue}}`);
  return value ? value.data["text/plain"] : null;
}}"""

CLOSE_NOTEBOOKS = """async () => {
  const open = [...window.jupyterapp.shell.widgets("main")];
  await Promise.all(open.map(async (document) => {
    const kernel = document.sessionContext?.session?.kernel;
    if (kernel?.status === "busy") await kernel.interrupt().catch(() => undefined);  // else its end is waited for
    await document.sessionContext?.shutdown().catch(() => undefined);
  }));
  for (const document of open) {
    if (document.context) document.context.model.dirty = false;  // else JupyterLab asks whether to save it
    document.dispose();
  }
}"""


def write_notebook(server: Server, name: str, *cells: str) -> str:
    """Write a notebook with these code cells into a new folder of the server. Returns its path.

    JupyterLab gives a notebook the kernel that runs for its path, which may be that of another test.
    """
    path = Path(uuid.uuid4().hex[:8]) / name
    (server.folder / "notebooks" / path).parent.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, server.folder / "notebooks" / path)
    return path.as_posix()


def artifact(name: str, ending: str) -> Path:
    """The path of a file that is kept for people to look at."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS / (re.sub(r"[^\w.-]", "_", name) + ending)


class Lab:
    """The people on one JupyterLab server.

    Pages are kept from test to test: JupyterLab takes seconds to load, and less in a browser context that has loaded it before.
    """

    def __init__(self, server: Server, browser: Browser) -> None:
        self.server = server
        self._browser = browser
        self._idle: list[Person] = []
        self.people: list[Person] = []

    def person(self, user: str) -> Person:
        """``user``, logged in, with a browser context of their own."""
        person = next((person for person in self._idle if person.user == user), None)
        if person is None:
            context = self._browser.new_context(viewport={"width": 1280, "height": 800})
            person = Person(self.server, user, context)
        else:
            self._idle.remove(person)
        self.people.append(person)
        return person

    def reset(self) -> None:
        """Shut down all notebooks and kernels, and keep the pages for the next test."""
        for person in self.people:
            try:
                person.leave()
                self._idle.append(person)
            except PlaywrightError:  # the page has crashed, or the test has closed it
                person.close()
        self.people.clear()
        for session in self.server.request("GET", "api/sessions", self.server.users[0]).good().json():
            self.server.request("DELETE", f"api/sessions/{session['id']}", self.server.users[0])

    def close(self) -> None:
        """Close all pages."""
        for person in (*self.people, *self._idle):
            person.close()
        self.people.clear()
        self._idle.clear()


class Person:
    """One person: one browser context with one page.

    Attributes:
        console: The console messages and uncaught errors of the page.
    """

    def __init__(self, server: Server, user: str, context: BrowserContext) -> None:
        self.server = server
        self.user = user
        self.context = context
        context.add_init_script(HIDE_DIALOGS)
        self.page: Page = context.new_page()
        self.console: list[str] = []
        self._bus_sockets: set[Any] = set()
        self._notebook = ""
        self._reusable_with = 0
        """The process id of the server whose JupyterLab the page shows; 0: the page has to be loaded again."""
        self.page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.console.append(f"page error: {error}"))
        self.page.on("websocket", self._socket_opened)

    @property
    def bus_sockets(self) -> int:
        """The number of the page's open WebSockets to the bus."""
        return len(self._bus_sockets)

    def _socket_opened(self, socket: Any) -> None:
        if "/ebus/ws" in socket.url:
            self._bus_sockets.add(socket)
            socket.on("close", lambda closed: self._bus_sockets.discard(closed))

    def close(self) -> None:
        """Close the page."""
        self.context.close()

    def leave(self) -> None:
        """Shut down and close all notebooks; a page that the test has disturbed is emptied instead."""
        if self.server.runs(self._reusable_with):
            self._within(f"({CLOSE_NOTEBOOKS})()")
        else:
            self.page.goto("about:blank")
        self.console.clear()

    # --- JupyterLab -------------------------------------------------------------------------------------------------

    def open(self, notebook: str) -> Person:
        """Open a notebook and wait until its kernel answers. A new page gets a workspace of its own."""
        if self.server.runs(self._reusable_with):
            self.command("docmanager:open", path=notebook)
        else:
            self.goto(f"lab/workspaces/{self.user}-{uuid.uuid4().hex[:8]}/tree/{notebook}")
            self._reusable_with = self.server.pid
        self.wait_ready(notebook)
        return self

    def goto(self, path: str) -> Person:
        """Load a page of the server, logged in."""
        self._reusable_with = 0
        self._bus_sockets.clear()  # those of the page before end without an event
        self.page.goto(f"{self.server.url}{path}?token={self.server.token(self.user)}")
        return self

    def wait_ready(self, notebook: str = "") -> None:
        """Wait until a notebook is in front and its kernel answers. Default: the one opened last."""
        self._notebook = notebook or self._notebook
        self.page.wait_for_function(READY, arg=self._notebook, timeout=READY_MS)

    def reload(self) -> None:
        """Save, reload the page, and wait until the notebook is back."""
        self._reusable_with = 0  # JupyterLab may restore the notebook once more, during the next test
        self.command("docmanager:save")
        self._bus_sockets.clear()
        self.page.reload()
        self.wait_ready()

    def command(self, name: str, **args: Any) -> None:
        """Execute a command of JupyterLab and wait for its end."""
        self._within("window.jupyterapp.commands.execute(...given)", name, args)

    def _within(self, work: str, *given: Any) -> None:
        """Wait for a promise of the page, with a limit."""
        self.page.evaluate(f"(given) => ({WITHIN})({work}, {json.dumps(work)}).then(() => null)", list(given))

    def run_all(self) -> None:
        """Run all cells."""
        self.command("notebook:run-all-cells")

    def run_cell(self, n: int) -> None:
        """Run the n-th code cell and wait for its end."""
        self.page.locator(".jp-Notebook-cell.jp-CodeCell").nth(n).locator(".jp-InputArea-editor").click()
        self.command("notebook:run-cell")

    def eval(self, expression: str, before: str = "") -> str:
        """Run ``before`` in the notebook's kernel, then evaluate ``expression``. Returns its repr."""
        found: str = self.page.evaluate(RUN, [self._notebook, before, expression, True])
        return found

    def wait_eval(self, expression: str, expected: str, before: str = "") -> None:
        """Wait until ``expression`` is ``expected``, up to white space.

        A kernel applies what arrives between two cells, so what a page shows is not in the kernel at the same moment.
        """
        found = ""

        def check() -> bool:
            nonlocal found
            found = " ".join(self.eval(expression, before).split())
            return found == expected

        if not self.wait_until(check):
            raise AssertionError(f"in {self.user}'s kernel {expression} is {found}, not {expected}")

    def wait_until(self, check: Callable[[], bool], seconds: float = WAIT_SECONDS) -> bool:
        """Wait until ``check`` holds. Returns whether it did in time."""
        deadline = time.monotonic() + seconds
        while not check():
            if time.monotonic() > deadline:
                return False
            self.page.wait_for_timeout(50)
        return True

    def wait_bound(self, name: str) -> None:
        """Wait until this page takes the values of the shared widget ``name`` from the bus.

        Until then a page and its kernel both write what a person does, and the widget may show older values in between.
        """
        self.wait_eval(
            f"[share.live for share in shares_of({name})]",
            "[True]",
            before="from ebus_jupyter.widgets.sharing.share import shares_of",
        )

    @contextmanager
    def busy_kernel(self) -> Iterator[None]:
        """Within the block, the kernel runs a cell."""
        end = self.server.folder / uuid.uuid4().hex
        cell = f"import pathlib, time\nwhile not pathlib.Path({str(end)!r}).exists(): time.sleep(0.05)"
        self.page.evaluate(RUN, [self._notebook, cell, "", False])
        self.page.wait_for_function(
            f"(path) => ({NOTEBOOK})(path).sessionContext.session.kernel.status === 'busy'", arg=self._notebook
        )
        try:
            yield
        finally:
            end.touch()

    def kernel_status(self) -> str:
        found: str = self.page.evaluate(
            f"(path) => ({NOTEBOOK})(path).sessionContext.session.kernel.status", self._notebook
        )
        return found

    def kernel_id(self) -> str:
        found: str = self.page.evaluate(
            f"(path) => ({NOTEBOOK})(path).sessionContext.session.kernel.id", self._notebook
        )
        return found

    def kill_kernel(self) -> None:
        """Let the kernel end by itself in half a second. The server starts it again."""
        self._reusable_with = 0  # JupyterLab would still deal with it in the next test
        self.eval("1", before="import os, threading; threading.Timer(.5, os._exit, [1]).start()")

    def restart_kernel(self) -> None:
        """Restart the kernel and wait until it answers."""
        self._within(f"({NOTEBOOK})(given[0]).sessionContext.session.kernel.restart()", self._notebook)
        self.wait_ready()
        self.eval("1")  # JupyterLab drops all comms on the kernel's "restarting", which comes before this answer

    def theme(self, name: str) -> None:
        """Switch to "JupyterLab Dark" or "JupyterLab Light"."""
        self.command("apputils:change-theme", theme=name)

    # --- what is on the page ----------------------------------------------------------------------------------------

    def output(self, n: int = 0) -> Locator:
        """The output area of the n-th code cell."""
        return self.page.locator(".jp-CodeCell").nth(n).locator(".jp-OutputArea-output")

    def slider(self, n: int = 0) -> Slider:
        """The n-th slider on the page."""
        return Slider(self.page.locator(".widget-hslider").nth(n))

    def screenshot(self, name: str) -> Path:
        path = artifact(name, ".png")
        self.page.screenshot(path=path)
        return path

    @contextmanager
    def offline(self) -> Iterator[None]:
        """Without a network, for a while."""
        self.context.set_offline(True)
        self._reusable_with = 0  # JupyterLab takes a while to recover
        try:
            yield
        finally:
            self.context.set_offline(False)


class Slider:
    """A slider of ipywidgets."""

    def __init__(self, root: Locator) -> None:
        self.root = root
        self.handle = root.locator(".noUi-handle")
        self.readout = root.locator(".widget-readout")

    def drag_to(self, fraction: float, steps: int = 10) -> str:
        """Drag the handle to ``fraction`` of the track with the mouse. Returns the text that the readout then shows."""
        self.handle.hover()  # scrolls to it, and waits until it stands still and nothing covers it
        track = self.root.locator(".noUi-base").bounding_box()
        grip = self.handle.bounding_box()
        assert track is not None
        assert grip is not None
        mouse = self.root.page.mouse
        mouse.down()
        mouse.move(track["x"] + track["width"] * fraction, grip["y"] + grip["height"] / 2, steps=steps)
        mouse.up()
        return self.text()

    def text(self) -> str:
        """What the readout shows."""
        return self.readout.inner_text()

    def expect_text(self, value: str) -> None:
        """Wait until the readout shows ``value``."""
        expect(self.readout).to_have_text(value)
