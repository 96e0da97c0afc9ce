"""Browser tests: a real JupyterLab, a real browser, a context for each person.

They run as a pytest call of their own: playwright's synchronous API leaves a loop behind that asyncio tests trip over.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright
from playwright.sync_api import Error as PlaywrightError

import ebus_jupyter as ebus
from tests.server.harness import Server

from .browsers import launch
from .lab import Lab, keep_text

LAB_ARGS = ("--LabApp.expose_app_in_browser=True", "--ServerApp.log_level=WARN")

NO_BUILD_CHECK = "c.ServerApp.tornado_settings = {'page_config_data': {'buildCheck': False, 'buildAvailable': False}}\n"
"""JupyterLab else runs node for each page that loads, to find out whether it should be built anew."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = launch(playwright)
        yield started
        started.close()


def start_lab(folder: Path, users: Iterable[str], **more: Any) -> Server:
    """Start JupyterLab for named people; further arguments are `Server`'s."""
    args = (*LAB_ARGS, *more.pop("args", ()))
    config = NO_BUILD_CHECK + more.pop("config", "")
    return Server(folder, users=users, app=more.pop("app", "jupyterlab"), args=args, config=config, **more).start()


@pytest.fixture(scope="module")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts servers of a file's own, for named people; further arguments are `Server`'s."""
    running: list[Server] = []

    def make(*users: str, **more: Any) -> Server:
        running.append(start_lab(tmp_path_factory.mktemp("lab"), users, **more))
        return running[-1]

    yield make
    for server in running:
        server.stop(timeout=2)  # a known fault of jupyter_server's keeps it for ever once pages have been open


@pytest.fixture(scope="session")
def session_lab(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Lab]:
    """One JupyterLab for all files of tests, and the pages of those who are in it."""
    people = Lab(start_lab(tmp_path_factory.mktemp("lab"), ("alice", "bob", "carol", "dave", "eve")), browser)
    yield people
    people.close()
    people.server.stop(timeout=2)


@pytest.fixture(scope="module")
def house(session_lab: Lab) -> Iterator[Lab]:
    """That JupyterLab for one file of tests; names of buses and notebooks must differ from test to test."""
    yield session_lab
    forget(session_lab.server)


def forget(server: Server) -> None:
    """Delete the kernels, buses and notebooks that tests have left; the server and its pages go on."""
    first = server.users[0]
    for kernel in server.request("GET", "api/kernels", first).good().json():
        server.request("DELETE", f"api/kernels/{kernel['id']}", first)
    for user in server.users:
        client = ebus.connect(server.url, server.token(user))
        for bus in client.buses():
            client.bus(bus["name"], scope=bus["scope"]).delete()
        client.close()
    for left in (server.folder / "notebooks").iterdir():  # the folder itself is the server's working directory
        shutil.rmtree(left) if left.is_dir() else left.unlink()


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
