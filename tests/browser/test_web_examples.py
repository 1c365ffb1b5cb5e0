"""The applications of examples/web, built as their README says, in front of `unbroken serve` and their API."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.browser.build import ROOT
from tests.browser.project import FRAMEWORKS, install, running
from tests.browser.tabs import until
from tests.support.commands import PASSWORD, serving, unbroken
from tests.support.npm import run
from tests.support.services import free_port

WEB = ROOT / "examples" / "web"
LIFETIME = 2.0  # seconds of an access token
LABELS = {
    "vue": {
        "log in": "登录",
        "send": "同时发出 20 个请求",
        "download": "下载报表",
        "listen": "接收消息",
        "leave": "退出登录",
        "everywhere": "退出所有设备",
        "refused": "用户名或密码错误",
    },
    "react": {
        "log in": "Log in",
        "send": "Send 20 requests",
        "download": "Download the report",
        "listen": "Listen",
        "leave": "Log out",
        "everywhere": "Log out everywhere",
        "refused": "wrong user name or password",
    },
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where logins and the API are: the folder of the examples with one user."""
    folder = tmp_path_factory.mktemp("web")
    for name in ("api.py", "unbroken.toml"):
        shutil.copy(WEB / name, folder)
    done = unbroken(folder, "users", "add", "ada", "--password-stdin", given=PASSWORD + "\n")
    assert done.returncode == 0, done.stderr
    uvicorn = [sys.executable, "-m", "uvicorn", "api:app", "--port", "0"]
    with (
        serving(folder, "--access-ttl", f"{LIFETIME}s") as auth,
        running(uvicorn, folder, "running on") as api,
    ):
        yield {"AUTH": auth.url, "API": api}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, servers: dict[str, str]) -> Iterator[Any]:
    """Builds an application once, and serves it: ``built("vue")``."""
    made: dict[str, str] = {}
    with ExitStack() as stack:

        def build(name: str) -> str:
            if name not in made:
                folder = tmp_path_factory.mktemp(name)
                project = install(folder / "project")
                shutil.copytree(WEB / name, project, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
                vite = str(project / "node_modules" / ".bin" / "vite")
                run(project, vite, "build", "--logLevel", "warn")
                preview = [vite, "preview", "--host", "127.0.0.1", "--port", str(free_port()), "--strictPort"]
                made[name] = stack.enter_context(running(preview, project, "Local", **servers))
            return made[name]

        yield build


@dataclass
class Visitor:
    """One browser: its pages, and how many refreshes it has sent."""

    context: Any
    url: str
    labels: dict[str, str]
    refreshes: int = 0

    def __post_init__(self) -> None:
        self.context.on("request", self._count)

    def _count(self, request: Any) -> None:
        self.refreshes += request.url.endswith("/auth/refresh")

    def open(self, path: str = "/orders") -> Any:
        page = self.context.new_page()
        page.goto(self.url + path)
        return page

    def log_in(self, page: Any, password: str = PASSWORD) -> None:
        page.locator("input[autocomplete=username]").fill("ada")
        page.locator("input[type=password]").fill(password)
        self.press(page, "log in")

    def press(self, page: Any, what: str) -> None:
        page.get_by_role("button", name=self.labels[what], exact=True).click()

    def press_until(self, page: Any, what: str, there: str) -> None:
        """Press a button until something is *there*, which is not the button any more."""

        def pressed() -> bool:
            if not page.locator(there).count():
                page.get_by_role("button", name=self.labels[what], exact=True).or_(page.locator(there)).first.click()
            return bool(page.locator(there).count())

        until(pressed, pause=lambda: page.wait_for_timeout(100))


@pytest.fixture
def visitor(browser: Any, built: Any) -> Iterator[Any]:
    """Opens a browser of its own for an application: ``visitor("vue")``."""
    contexts = []

    def enter(name: str) -> Visitor:
        contexts.append(browser.new_context(accept_downloads=True))
        contexts[-1].set_default_timeout(20_000)
        return Visitor(contexts[-1], built(name), LABELS[name])

    yield enter
    for context in contexts:
        context.close()


def rows(page: Any) -> int:
    return int(page.locator("li").count())


@pytest.mark.parametrize("name", LABELS)
def test_an_example_never_thinks_of_tokens(name: str, visitor: Any, tmp_path: Path) -> None:
    ada = visitor(name)
    page = ada.open("/orders?from=mail#top")
    ada.log_in(page, "wrong")
    page.get_by_role("alert").get_by_text(ada.labels["refused"]).wait_for()
    ada.log_in(page)
    page.locator("h1").wait_for()
    assert page.url.endswith("/orders?from=mail#top"), "the login leads back"

    other = ada.open()
    other.locator("h1").wait_for()
    for tab in (page, other):
        tab.wait_for_timeout(LIFETIME * 1000)  # each request of what follows has a dead token
    before = ada.refreshes
    ada.press(page, "send")
    ada.press(other, "send")
    until(lambda: rows(page) == rows(other) == 20, pause=lambda: page.wait_for_timeout(20))
    assert ada.refreshes - before == 1, "one refresh for forty requests of two tabs"

    upload = tmp_path / "upload.bin"
    upload.write_bytes(os.urandom(300_000))
    page.wait_for_timeout(LIFETIME * 1000)
    page.locator("input[type=file]").set_input_files(upload)
    page.locator("output", has_text="300000").wait_for()
    assert page.locator("progress").evaluate("({ value }) => value") == 100

    with page.expect_download() as download:
        ada.press(page, "download")
    assert Path(download.value.path()).read_text() == "order,owner\n1,ada\n"
    ada.press(page, "listen")
    page.locator(".heard", has_text="hello ada").wait_for()


@pytest.mark.parametrize("name", LABELS)
def test_a_logout_everywhere_reaches_all_tabs_and_other_browsers(name: str, visitor: Any) -> None:
    here, there = visitor(name), visitor(name)
    pages = [here.open(), here.open(), there.open()]
    for visited, page in ((here, pages[0]), (there, pages[2])):
        visited.log_in(page)
        page.locator("h1").wait_for()
    pages[1].locator("h1").wait_for()  # the other tab follows a login
    here.press(pages[0], "everywhere")
    for page in pages[:2]:
        page.locator("input[type=password]").wait_for()
    there.press_until(pages[2], "send", "input[type=password]")  # the API hears of it within a second


@pytest.mark.parametrize("name", LABELS)
def test_the_examples_have_the_versions_that_the_tests_have(name: str) -> None:
    tested = json.loads((FRAMEWORKS / "package.json").read_text())["dependencies"]
    about = json.loads((WEB / name / "package.json").read_text())
    wanted = about["dependencies"] | about["devDependencies"]
    assert wanted.pop("unbroken-session") == "file:../../../src/unbroken/browser"
    assert wanted.items() <= tested.items()
