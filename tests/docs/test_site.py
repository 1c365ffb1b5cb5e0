"""The site: it is built without a network, each link in it leads somewhere, and its generated pages are current."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from tests.docs.pages import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built while each attempt to connect fails."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the site must be built without a network")

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        build_site(folder)
    return folder


def build_site(folder: Path, docs: Path = DOCS) -> None:
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), docs_dir=str(docs), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)


def test_each_generated_page_is_what_the_code_says() -> None:
    command = [sys.executable, "-m", "scripts.reference", "--check"]  # a process has one Django
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), f"run scripts/build-docs, and commit it: {done.stderr}"


LEAD_NOWHERE = ("nowhere.md", "people.md#no-such-heading", "../src/unbroken/nowhere.py", "/people")


def test_links_that_lead_nowhere_fail_the_build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    with (tmp_path / "docs" / "clients.md").open("a") as page:
        page.writelines(f"\nSee [this]({link}).\n" for link in LEAD_NOWHERE)
    with pytest.raises(Abort):
        build_site(tmp_path / "site", tmp_path / "docs")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [link for link in LEAD_NOWHERE if not any(link.strip("./") in warning for warning in warnings)] == []


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    loads = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=[\"']?(https?:)?//(?!unbroken\.example)[^>]*>")
    for page in site.rglob("*.html"):
        assert [found[0] for found in loads.finditer(page.read_text())] == [], page


def test_each_page_is_found_by_the_search(site: Path) -> None:
    found = {
        entry["location"].partition("#")[0]
        for entry in json.loads((site / "search/search_index.json").read_text())["docs"]
    }
    assert {location(path) for path in DOCS.rglob("*.md")} - found == set()


def location(path: Path) -> str:
    relative = path.relative_to(DOCS).with_suffix("").as_posix()
    return relative.removesuffix("README") if relative.endswith("README") else f"{relative}/"


def test_the_menu_has_each_page() -> None:
    menu = set(targets(load_config(str(ROOT / "mkdocs.yml")).nav))
    decisions = {f"decisions/{path.name}" for path in DOCS.glob("decisions/0*.md")}
    assert {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - decisions - menu == set()


def targets(nav: Any) -> Iterator[str]:
    for one in nav if isinstance(nav, list) else [nav]:
        if isinstance(one, dict):
            for value in one.values():
                yield from targets(value)
        else:
            yield one


def test_llms_txt_lists_the_pages_of_the_index() -> None:
    listed = set(re.findall(r"\]\((.*?)\)", (DOCS / "llms.txt").read_text()))
    indexed = set(re.findall(r"^\| \[.*?\]\((.*?)\)", (DOCS / "README.md").read_text(), re.MULTILINE))
    assert listed == indexed
    assert all((DOCS / target).is_file() for target in listed)


def test_the_site_has_llms_txt_and_the_picture(site: Path) -> None:
    assert (site / "llms.txt").read_text() == (DOCS / "llms.txt").read_text()
    assert "OTHER SERVICES" in (site / "index.html").read_text()


def test_the_site_has_the_files_that_the_readme_links_to(site: Path) -> None:
    links = re.findall(r"\]\((examples/[^)]*)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (site / "source" / link / "index.html").is_file()] == []


# ---- what the reference must have ------------------------------------------------------------------------------------


def reference(name: str) -> str:
    return (DOCS / "reference" / name).read_text()


def test_the_reference_has_every_public_name() -> None:
    from importlib import import_module

    from scripts.reference.python_names import MODULES
    from tests.support import django_project

    django_project.set_up()
    text = reference("python.md")
    names = {
        f"{module}.{name}"
        for modules in MODULES.values()
        for module in modules
        for name in import_module(module).__all__
    }
    shown = set(re.findall(r"^#### (\S+)$", text, re.MULTILINE))
    elsewhere = set(re.findall(r"^`(\w+)`: see", text, re.MULTILINE))
    assert {name for name in names - shown if name.rpartition(".")[2] not in elsewhere} == set()


def test_the_reference_has_every_setting_of_every_face() -> None:
    import inspect

    from unbroken import Session
    from unbroken.cli.settings import setting_definitions
    from unbroken.django import conf
    from unbroken.server import Cookies, Policy, ProofPolicy, RateLimitPolicy, Sessions
    from unbroken.server.http.settings import EndpointSettings

    text = reference("settings.md")
    owners = (Session, Sessions, Policy, Cookies, RateLimitPolicy, ProofPolicy, EndpointSettings)
    python = {name for owner in owners for name in inspect.signature(owner).parameters}
    django = {*conf.OWN, *conf.POLICY, *conf.SESSIONS, *conf.ENDPOINTS}
    serve = {one.option for one in setting_definitions().values() if "option" in one.sources}
    assert {name for name in python | django | serve if f"`{name}`" not in text} == set()


def test_each_setting_has_a_meaning() -> None:
    rows = re.findall(r"^\| `.*\|$", reference("settings.md"), re.MULTILINE)
    assert rows
    assert [row for row in rows if re.search(r"\|\s*\|$", row)] == []


def test_the_reference_has_every_endpoint() -> None:
    from unbroken.server import Endpoints, MemorySessionStore, Sessions

    endpoints = Endpoints(Sessions(MemorySessionStore()), lambda name, password: None, verify_mfa=lambda *_: True)
    served = {f"{one.method} {endpoints.path(one)}" for one in endpoints.routes}
    text = reference("http.md")
    assert {name for name in served if f"## {name}\n" not in text and f"`{name}`" not in text} == set()


def test_the_index_of_errors_has_every_code() -> None:
    from unbroken import errors
    from unbroken.server.http.messages import STATUS

    kinds = [getattr(errors, name) for name in errors.__all__] + list(STATUS)
    browser = re.findall(r'^  \| "(\w+)"', (ROOT / "src/unbroken/browser/unbroken.d.ts").read_text(), re.MULTILINE)
    text = reference("errors.md")
    assert {kind.code for kind in kinds if f"`{kind.code}`" not in text} == {"unbroken"} & {kind.code for kind in kinds}
    assert {code for code in browser if f"`{code}`" not in reference("browser.md")} == set()


def test_a_response_has_no_reason_that_the_index_lacks() -> None:
    text = reference("errors.md")
    source = "".join(path.read_text() for path in (ROOT / "src/unbroken/server").rglob("*.py"))
    reasons = set(re.findall(r'reason="(\w+)"', source)) | set(re.findall(r'refused\("(\w+)"', source))
    assert reasons
    assert {reason for reason in reasons if f"`{reason}`" not in text} == set()
