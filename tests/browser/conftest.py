"""Browser tests: a real JupyterLab, a real browser, a context for each person.

They run as a pytest call of their own: playwright's synchronous API leaves a loop behind that asyncio tests trip over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from tests.server.harness import Server

from .browsers import launch
from .lab import Lab, keep_text

LAB_ARGS = ("--LabApp.expose_app_in_browser=True", "--ServerApp.log_level=WARN")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = launch(playwright)
        yield started
        started.close()


@pytest.fixture(scope="module")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts JupyterLab for named people; further arguments are `Server`'s."""
    running: list[Server] = []

    def make(*users: str, **more: Any) -> Server:
        args = (*LAB_ARGS, *more.pop("args", ()))
        running.append(
            Server(tmp_path_factory.mktemp("lab"), users=users, app=more.pop("app", "jupyterlab"), args=args, **more)
        )
        return running[-1].start()

    yield make
    for server in running:
        server.stop(timeout=2)  # a known fault of jupyter_server's keeps it for ever once pages have been open


@pytest.fixture(scope="module")
def lab_server(make_server: Callable[..., Server]) -> Server:
    """One JupyterLab for a file of tests; names of buses and notebooks must differ from test to test."""
    return make_server("alice", "bob", "carol", "dave", "eve")


@pytest.fixture(scope="module")
def house(lab_server: Server, browser: Browser) -> Iterator[Lab]:
    """All who live in that JupyterLab."""
    people = Lab(lab_server, browser)
    yield people
    people.close()


@pytest.fixture
def lab(house: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """For one test."""
    yield house
    if keep_evidence(house, request.node):
        house.close()
        house.server.begin_anew()  # what is left of it would fail the second run too
    house.go_home()


def keep_evidence(people: Lab, item: pytest.Item) -> bool:
    """If the test has failed: why, what each person saw, what their page and the server said."""
    test, failure = item.name, getattr(item, "failure", "")
    if not failure:
        return False
    item.failure = ""  # type: ignore[attr-defined]  # it may be run again
    keep_text(f"{test}-failure", failure)
    for person in people.people:
        keep_text(f"{test}-{person.user}", "\n".join(person.said))
        with contextlib.suppress(PlaywrightError):  # a page that crashed shows nothing
            person.screenshot(f"{test}-{person.user}")
    keep_text(f"{test}-server", people.server.output())
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.failure = report.longreprtext  # type: ignore[attr-defined]
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A test that passes only when run again is a fault that waits: say what failed."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"run again: {report.nodeid}", sep="-")
        terminalreporter.write_line(report.longreprtext)
