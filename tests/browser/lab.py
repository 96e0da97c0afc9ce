"""People in front of a real JupyterLab, each in a browser context of their own."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from playwright.sync_api import Error as PlaywrightError

from tests.server.harness import Server

READY_MS = 60_000
"""How long a notebook may take until its kernel answers, on a busy machine."""

ARTIFACTS = Path(__file__).parent / "artifacts"

READY = """() => {
  const context = window.jupyterapp?.shell?.currentWidget?.sessionContext;
  const kernel = context?.session?.kernel;
  return Boolean(context?.isReady && kernel && kernel.connectionStatus === "connected" && kernel.status === "idle");
}"""

# Playwright waits for a script's promise for as long as it takes, and a server that dies settles none.
WITHIN = """async (work, what) => {
  const late = new Promise((_, fail) => setTimeout(() => fail(new Error(`${what}: no answer`)), LIMIT));
  return await Promise.race([work, late]);
}""".replace("LIMIT", str(READY_MS))

RUN = """async ([code, wait]) => {
  const within = WITHIN;
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const [body, last] = code;
  const future = kernel.requestExecute({
    code: body, store_history: false, user_expressions: last ? { value: last } : {}, stop_on_error: false,
  });
  if (!wait) return null;
  const reply = (await within(future.done, body || last)).content;
  if (reply.status !== "ok") throw new Error(`${reply.ename}: ${reply.evalue}`);
  const value = reply.user_expressions?.value;
  if (value?.status === "error") throw new Error(`${value.ename}: ${value.evalue}`);
  return value ? value.data["text/plain"] : null;
}""".replace("WITHIN", WITHIN)


def write_notebook(server: Server, name: str, *cells: str) -> str:
    """A notebook with these code cells in the server's folder; returns its name."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, server.folder / "notebooks" / name)
    return name


def kept(name: str, ending: str) -> Path:
    """Where something of that name is kept for people to look at."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS / (re.sub(r"[^\w.-]", "_", name) + ending)


def keep_text(name: str, text: str) -> None:
    kept(name, ".log").write_text(text)


LEAVE = """async () => {
  const open = [...window.jupyterapp.shell.widgets("main")];
  await Promise.all(open.map((document) => document.sessionContext?.shutdown().catch(() => undefined)));
  for (const document of open) {
    if (document.context) document.context.model.dirty = false;  // nobody is there to answer a question
    document.dispose();
  }
}"""


class Lab:
    """One browser on one JupyterLab.

    Who goes home between two tests leaves the page open, with no notebook on it: JupyterLab takes five seconds to load.
    """

    def __init__(self, server: Server, browser: Browser) -> None:
        self.server = server
        self._browser = browser
        self._at_home: list[Person] = []
        self.people: list[Person] = []

    def person(self, user: str) -> Person:
        """``user``, logged in, in a browser of their own."""
        person = next((person for person in self._at_home if person.user == user), None)
        if person is None:
            context = self._browser.new_context(viewport={"width": 1280, "height": 800})
            person = Person(self.server, user, context)
        else:
            self._at_home.remove(person)
        self.people.append(person)
        return person

    def go_home(self) -> None:
        """All leave their notebooks, and shut down the kernels; pages that something was done to are closed."""
        for person in self.people:
            if person.leave():
                self._at_home.append(person)
            else:
                person.close()
        self.people.clear()

    def close(self) -> None:
        for person in (*self.people, *self._at_home):
            person.close()
        self.people.clear()
        self._at_home.clear()


class Person:
    """One person, one browser context, one page."""

    def __init__(self, server: Server, user: str, context: BrowserContext) -> None:
        self.server = server
        self.user = user
        self.context = context
        self.page: Page = context.new_page()
        self.said: list[str] = []
        self.bus_sockets = 0
        self._process = 0
        """The server's, at the time when the page was loaded."""
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"page error: {error}"))
        self.page.on("websocket", self._count)
        self.page.add_locator_handler(self.page.locator(".jp-Dialog").first, lambda _: self.dismiss_dialogs())

    def _count(self, socket: Any) -> None:
        if "/ebus/ws" not in socket.url:
            return
        self.bus_sockets += 1

        def gone(_: Any) -> None:
            self.bus_sockets -= 1

        socket.on("close", gone)

    def close(self) -> None:
        self.context.close()

    def leave(self) -> bool:
        """Close the notebooks; whether the page is as good as new."""
        if not self.server.runs(self._process) or self.page.is_closed() or self.page.locator(".jp-Dialog").count():
            return False
        with contextlib.suppress(PlaywrightError):
            self._within(f"({LEAVE})()")
            self.said.clear()
            return True
        return False

    # --- JupyterLab -------------------------------------------------------------------------------------------------

    def open(self, notebook: str) -> Person:
        """Open a notebook and wait until its kernel answers; the first one in a workspace of its own."""
        if self.server.runs(self._process):
            self.command("docmanager:open", path=notebook)
            self.wait_ready()
            return self
        self._process = self.server.pid
        self.visit(f"lab/workspaces/{self.user}-{uuid.uuid4().hex[:8]}/tree/{notebook}")
        self.wait_ready()
        return self

    def visit(self, path: str) -> Person:
        """Go to a page of the server's, logged in."""
        self.page.goto(f"{self.server.url}{path}?token={self.server.token(self.user)}")
        return self

    def wait_ready(self) -> None:
        self.page.wait_for_function(READY, timeout=READY_MS)

    def reload(self) -> None:
        """Save, reload the page, and wait until the notebook is back."""
        self._process = 0  # JupyterLab opens the address's notebook once more, whenever it comes to that
        self.command("docmanager:save")
        self.page.reload()
        self.wait_ready()

    def command(self, name: str, **args: Any) -> None:
        """Run a command of JupyterLab's and wait for its end."""
        self._within("window.jupyterapp.commands.execute(...given)", name, args)

    def _within(self, work: str, *given: Any) -> None:
        """Wait for a promise of the page's, not for ever."""
        self.page.evaluate(f"(given) => ({WITHIN})({work}, {json.dumps(work)}).then(() => null)", list(given))

    def run_all(self) -> None:
        """Run all cells."""
        self.command("notebook:run-all-cells")

    def run_cell(self, n: int) -> None:
        """Run the n-th code cell, and wait for its end."""
        self.page.locator(".jp-Notebook-cell.jp-CodeCell").nth(n).locator(".jp-InputArea-editor").click()
        self.command("notebook:run-cell")

    def eval(self, expression: str, before: str = "") -> str:
        """Run code in this notebook's kernel; the text of ``expression``."""
        found: str = self.page.evaluate(RUN, [[before, expression], True])
        return found

    def eval_soon(self, expression: str, expected: str, tries: int = 40) -> None:
        """Wait until ``expression`` is ``expected``: a kernel takes what a page sends between two cells."""
        for _ in range(tries):
            found = self.eval(expression)
            if found == expected:
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"in {self.user}'s kernel {expression} is {found}, not {expected}")

    def keep_busy(self, seconds: float) -> None:
        """Make the kernel busy, and don't wait."""
        self.page.evaluate(RUN, [[f"import time; time.sleep({seconds})", ""], False])

    def kernel_status(self) -> str:
        found: str = self.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status")
        return found

    def kernel_id(self) -> str:
        found: str = self.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.id")
        return found

    def kill_kernel(self) -> None:
        """Let the kernel end by itself, in half a second; the server will start it again."""
        self._process = 0  # what JupyterLab makes of it would still be under way in the next test
        self.eval("1", before="import os, threading; threading.Timer(.5, os._exit, [1]).start()")

    def restart_kernel(self) -> None:
        self._within("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
        self.wait_ready()
        self.eval("1")  # what it says of its start comes before the answer; JupyterLab drops all comms when it hears it

    def dismiss_dialogs(self) -> None:
        """Take JupyterLab's own questions away (that the server is gone, say): they lie over the notebook.

        Before a locator acts this is done anyway; not before the mouse does.
        """
        self.page.evaluate("document.querySelectorAll('.jp-Dialog').forEach((dialog) => dialog.remove())")

    def theme(self, name: str) -> None:
        """ "JupyterLab Dark" or "JupyterLab Light"."""
        self.command("apputils:change-theme", theme=name)

    # --- what is on the page ----------------------------------------------------------------------------------------

    def output(self, n: int = 0) -> Locator:
        """The output area of the n-th code cell."""
        return self.page.locator(".jp-CodeCell").nth(n).locator(".jp-OutputArea-output")

    def slider(self, n: int = 0) -> Slider:
        """The n-th slider on the page."""
        return Slider(self.page.locator(".widget-hslider").nth(n))

    def screenshot(self, name: str) -> Path:
        path = kept(name, ".png")
        self.page.screenshot(path=path)
        return path

    @contextmanager
    def offline(self) -> Iterator[None]:
        """Without a network, for a while."""
        self.context.set_offline(True)
        self._process = 0  # JupyterLab takes its time to come back
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
        """Drag the handle to ``fraction`` of the track, with the mouse; returns what the readout then shows."""
        track = self.root.locator(".noUi-base").bounding_box()
        grip = self.handle.bounding_box()
        assert track is not None
        assert grip is not None
        mouse = self.root.page.mouse
        mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
        mouse.down()
        mouse.move(track["x"] + track["width"] * fraction, grip["y"] + grip["height"] / 2, steps=steps)
        mouse.up()
        return self.shows()

    def shows(self) -> str:
        """What the readout shows."""
        return self.readout.inner_text()

    def shows_soon(self, value: str, timeout: float = 5_000) -> None:
        """Wait until the readout shows ``value``."""
        expect(self.readout).to_have_text(value, timeout=timeout)
