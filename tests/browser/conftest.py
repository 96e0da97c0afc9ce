"""Browser tests: a real JupyterLab, a real Chromium, a context for each person.

They run as a pytest call of their own: playwright's synchronous API leaves a loop behind that asyncio tests trip over.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.server.harness import Server

from .chromium import FLAGS, find
from .lab import ARTIFACTS, Lab

LAB_ARGS = ("--LabApp.expose_app_in_browser=True", "--ServerApp.log_level=WARN")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find(), args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
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
        server.stop()


@pytest.fixture(scope="module")
def lab_server(make_server: Callable[..., Server]) -> Server:
    """One JupyterLab for a file of tests; names of buses and notebooks must differ from test to test."""
    return make_server("alice", "bob", "carol", "dave", "eve")


@pytest.fixture
def lab(lab_server: Server, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Lab]:
    people = Lab(lab_server, browser)
    yield people
    report = getattr(request.node, "call_report", None)
    if report is not None and report.failed:
        ARTIFACTS.mkdir(exist_ok=True)
        for person in people.people:
            person.screenshot(f"{request.node.name}-{person.user}")
            (ARTIFACTS / f"{request.node.name}-{person.user}.log".replace("/", "_")).write_text("\n".join(person.said))
        (ARTIFACTS / f"{request.node.name}-server.log".replace("/", "_")).write_text(lab_server.output())
    people.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.call_report = report  # type: ignore[attr-defined]
    return report
