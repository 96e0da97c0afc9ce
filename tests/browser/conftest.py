"""Browser tests: a real JupyterLab, a real Chromium, and a browser context for each person.

They run as a pytest call of their own, because playwright's synchronous API leaves an event loop behind that asyncio tests
stumble over. One JupyterLab serves all tests of a worker; the names of buses and notebooks must differ from test to test.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from tests.server.harness import Server

from .browsers import launch
from .lab import WAIT_SECONDS, Lab, artifact

CONFIG = """
# By TCP, the server chooses a kernel's ports before the kernel binds them, and another process may take one in between.
c.KernelManager.transport = "ipc"

# JupyterLab else runs node for each page that loads, to find out whether it should be built again.
c.ServerApp.tornado_settings = {"page_config_data": {"buildCheck": False, "buildAvailable": False}}
"""

LAB_CONFIG = """
# Installed for other tests; importing them takes as long as the rest of a start.
c.ServerApp.jpserver_extensions.update({"jupyter_lsp": False, "notebook": False, "voila.server_extension": False})
"""

LAB_ARGS = ("--LabApp.expose_app_in_browser=True", "--ServerApp.log_level=WARN")

expect.set_options(timeout=WAIT_SECONDS * 1000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = launch(playwright)
        yield started
        started.close()


@contextlib.contextmanager
def servers() -> Iterator[Callable[..., Server]]:
    """A function that starts JupyterLab for the users it is given; further arguments are those of `Server`."""
    with contextlib.ExitStack() as running:

        def make(
            *users: str, app: str = "jupyterlab", config: str = "", args: Iterable[str] = (), **more: Any
        ) -> Server:
            # The folder's path is short, because that of a Unix socket must be: at most 104 bytes on macOS.
            folder = running.enter_context(TemporaryDirectory(prefix="ebus-", dir="/tmp", ignore_cleanup_errors=True))
            config = CONFIG + (LAB_CONFIG if app == "jupyterlab" else "") + config
            options = {"app": app, "config": config, "args": (*LAB_ARGS, *args), **more}
            server = Server(Path(folder), users=users, **options).start()
            running.callback(server.stop, timeout=2)  # jupyter_server may ignore SIGTERM once a page has been open
            return server

        yield make


@pytest.fixture(scope="module")
def make_server() -> Iterator[Callable[..., Server]]:
    """Starts servers for one file of tests; see `servers`."""
    with servers() as make:
        yield make


@pytest.fixture(scope="session")
def shared_lab(browser: Browser) -> Iterator[Lab]:
    """One JupyterLab for all tests of a worker."""
    with servers() as make:
        lab = Lab(make("alice", "bob", "carol", "dave", "eve"), browser)
        yield lab
        lab.close()


@pytest.fixture
def lab(shared_lab: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The worker's JupyterLab, without anyone in it."""
    yield from use(shared_lab, request.node)


def use(lab: Lab, item: pytest.Item) -> Iterator[Lab]:
    """Let a test use ``lab``; afterwards keep the evidence of a failure, and leave the lab as it was."""
    yield lab
    failure = getattr(item, "failure", "")
    if failure:
        keep_evidence(lab, item.name, failure)
        for person in lab.people:
            person.close()
        lab.people.clear()
    if not lab.server.is_running:  # the test has killed it
        lab.server.start()
    lab.reset()


def keep_evidence(lab: Lab, test: str, failure: str) -> None:
    """Keep the reason of a failure, each person's screen and console, and the server's log."""
    artifact(f"{test}-failure", ".log").write_text(failure)
    for person in lab.people:
        artifact(f"{test}-{person.user}", ".log").write_text("\n".join(person.console))
        with contextlib.suppress(PlaywrightError):  # a page that has crashed
            person.screenshot(f"{test}-{person.user}")
    artifact(f"{test}-server", ".log").write_text(lab.server.output())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.failure = report.longreprtext  # type: ignore[attr-defined]
    return report
