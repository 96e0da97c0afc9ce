"""Participants in pages: a real browser, run by a thread of its own, which also fetches what the pages have recorded."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from tests.browser.browsers import launch

from .check.records import Recorder
from .proxy import Line

SCRIPT = (Path(__file__).parent / "page.js").read_text()
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  Object.defineProperty(document, "visibilityState", { value: hidden ? "hidden" : "visible", configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
FETCH_SECONDS = 0.2


class Pages:
    """The browser. Playwright's pages are used on the thread that made them, so all work is handed to that thread."""

    def __init__(self) -> None:
        self._work: queue.Queue[tuple[Callable[[Browser], Any], Future[Any]] | None] = queue.Queue()
        self.actors: list[PageActor] = []
        self._thread = threading.Thread(target=self._run, name="browser", daemon=True)
        self._thread.start()

    def do(self, work: Callable[[Browser], Any], timeout: float = 200) -> Any:
        """Do something on the browser's thread, and return what it returns."""
        done: Future[Any] = Future()
        self._work.put((work, done))
        return done.result(timeout)

    def _run(self) -> None:
        with sync_playwright() as playwright:
            browser = launch(playwright)
            while True:
                try:
                    item = self._work.get(timeout=FETCH_SECONDS)
                except queue.Empty:
                    for actor in self.actors:
                        actor.fetch()
                    continue
                if item is None:
                    break
                work, done = item
                try:
                    done.set_result(work(browser))
                except BaseException as error:
                    done.set_exception(error)
            browser.close()

    def close(self) -> None:
        self._work.put(None)
        self._thread.join(60)


class PageActor:
    """A participant in a page of its own, in a context of its own."""

    def __init__(self, pages: Pages, spec: dict[str, Any], line: Line) -> None:
        self.line = line
        self.name: str = spec["name"]
        self.user: str = spec["user"]
        self._pages = pages
        self._page: Page | None = None
        self._is_awake = True
        self._begin(spec)
        pages.actors.append(self)

    def wait_ready(self) -> None:
        pass

    def _begin(self, spec: dict[str, Any]) -> None:
        self.name = spec["name"]
        record = Recorder(spec["record"])
        # Until the page has begun, there is at least one line: a page may be gone before anything was fetched.
        record("me", name=self.name, user=self.user, kind="page")

        def load(browser: Browser) -> None:
            if self._page is None:
                self._page = browser.new_context().new_page()
                self._page.set_default_timeout(10_000)
            until = time.monotonic() + 60
            while True:
                try:
                    # A page of the server's origin that is no application, so that nothing else happens on it.
                    self._page.goto(self.line.url + "ebus/client.js", wait_until="commit")
                    self._record = record  # what the page before it has not told is gone
                    self._page.evaluate(SCRIPT, {**spec, "t": time.monotonic()})
                    return
                except PlaywrightError:  # the line has a fault at this moment
                    if time.monotonic() > until:
                        raise

        self._pages.do(load)

    def fetch(self) -> None:
        """Take over what the page has recorded. On the browser's thread."""
        if self._page is None or not self._is_awake:
            return
        try:
            lines = self._page.evaluate("() => (window.lines ?? []).splice(0)")
        except PlaywrightError:  # it is being loaded
            return
        for line in lines:
            self._record.line(line)

    def command(self, what: str) -> str:
        page = self._page
        assert page is not None

        def run(browser: Browser) -> str:
            said = str(page.evaluate(f"() => window.{what}()"))
            self.fetch()
            return said

        return str(self._pages.do(run))

    def signal(self, number: int) -> None:
        raise NotImplementedError("a page has no process of its own")

    def replace(self, spec: dict[str, Any]) -> None:
        """Reload: the old page is gone with what it had not told, and another one comes."""
        self._begin(spec)

    def sleep(self, wait: Callable[[], Any]) -> None:
        """Freeze the page, as a browser does with one that nobody looks at, until ``wait`` returns."""
        page = self._page
        assert page is not None
        session = self._pages.do(lambda _: page.context.new_cdp_session(page))
        self._is_awake = False
        self._pages.do(lambda _: session.send("Page.setWebLifecycleState", {"state": "frozen"}))
        wait()
        self._pages.do(lambda _: session.send("Page.setWebLifecycleState", {"state": "active"}))
        self._is_awake = True
        self._pages.do(lambda _: session.detach())

    def hide(self, wait: Callable[[], Any]) -> None:
        """Tell the page that it is hidden, until ``wait`` returns."""
        page = self._page
        assert page is not None
        self._pages.do(lambda _: page.evaluate(HIDE, True))
        wait()
        self._pages.do(lambda _: page.evaluate(HIDE, False))

    def go_offline(self, wait: Callable[[], Any]) -> None:
        """Take the browser's network away, until ``wait`` returns."""
        page = self._page
        assert page is not None
        self._pages.do(lambda _: page.context.set_offline(True))
        wait()
        self._pages.do(lambda _: page.context.set_offline(False))

    def close(self) -> None:
        page, self._page = self._page, None
        if page is not None:
            self._pages.do(lambda _: page.context.close())
