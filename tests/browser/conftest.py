"""Browser tests: a real JupyterLab, a real Chromium, and a browser context for each person.

They run as a pytest call of their own, because playwright's synchronous API leaves an event loop behind that asyncio tests
stumble over. One JupyterLab serves all tests of a worker; the names of buses and notebooks must differ from test to test.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from tests.server.harness import Server

from .chromium import FLAGS, find
from .lab import WAIT_SECONDS, Lab, artifact

LAB_ARGS = ("--LabApp.expose_app_in_browser=True", "--ServerApp.log_level=WARN")

expect.set_options(timeout=WAIT_SECONDS * 1000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = find()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts JupyterLab for these users; further arguments are those of `Server`."""
    running: list[Server] = []

    def make(*users: str, **more: Any) -> Server:
        args = (*LAB_ARGS, *more.pop("args", ()))
        running.append(
            Server(tmp_path_factory.mktemp("lab"), users=users, app=more.pop("app", "jupyterlab"), args=args, **more)
        )
        return running[-1].start()

    yield make
    for server in running:
        server.stop(timeout=2)  # jupyter_server may ignore SIGTERM once a page has been open


@pytest.fixture(scope="session")
def shared_lab(make_server: Callable[..., Server], browser: Browser) -> Iterator[Lab]:
    """One JupyterLab for all tests of a worker."""
    lab = Lab(make_server("alice", "bob", "carol", "dave", "eve"), browser)
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
