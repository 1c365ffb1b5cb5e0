"""The documents: their examples run, their links and anchors resolve, and they use one word for one thing.

Pages whose examples need a server have their tests in the other files of this folder.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, examples, run

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("name", ["tutorial.md", "refreshing.md"])
def test_the_examples_of_a_document_run_in_their_order(name: str, tmp_path: Path) -> None:
    done = run("\n\n".join(examples(ROOT / "docs" / name)), tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_examples_of_the_readme_run(tmp_path: Path) -> None:
    client, server = examples(ROOT / "README.md")
    assert run(server, tmp_path).returncode == 0
    # The first example needs a server: it gets one of its own, at the address it names.
    serving = """
import socket, threading, time, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from unbroken.server import MemorySessionStore, Sessions
from unbroken.starlette import routes

async def orders(request):
    return JSONResponse([])

listening = socket.socket(); listening.bind(("127.0.0.1", 0))
url = f"http://127.0.0.1:{listening.getsockname()[1]}"
app = Starlette(routes=[*routes(Sessions(MemorySessionStore()), lambda name, password: name), Route("/orders", orders)])
server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
while not server.started:
    time.sleep(0.01)
password = "x"
"""
    client = client.replace('"https://api.example.com', 'url + "').replace("~/.config/myapp/", "")
    done = run(serving + client + "\nassert session.status.state == 'good'\n", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_and_anchor_resolves(document: Path) -> None:
    broken = []
    for target, anchor in links(document):
        found = (document.parent / target).resolve() if target else document
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(f"{target}#{anchor}" if anchor else target)
    assert broken == []


def links(document: Path) -> list[tuple[str, str]]:
    """The relative links of *document*, images too: path and anchor, of which one may be empty."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text)
    return [(target, anchor) for target, anchor in found if not re.match(r"[a-z]+:", target)]


def anchors(document: Path) -> list[str]:
    """The anchors of the headings of *document*."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_the_index_lists_every_page() -> None:
    listed = {(ROOT / "docs" / target).resolve() for target, _ in links(ROOT / "docs" / "README.md")}
    pages = {*ROOT.glob("docs/*.md"), *ROOT.glob("docs/extend/*.md")} - {ROOT / "docs" / "README.md"}
    assert pages - listed == set()


def test_the_list_of_decisions_has_each_with_its_title() -> None:
    folder = ROOT / "docs" / "decisions"
    expected = [f"- [{file.read_text().splitlines()[0][2:]}]({file.name})" for file in sorted(folder.glob("0*.md"))]
    assert [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("- ")] == expected


def test_the_floor_plan_names_files_and_folders_that_exist() -> None:
    plan = (ROOT / "CONTRIBUTING.md").read_text().partition("src/unbroken/\n")[2].partition("tests/")[0]
    files = set(re.findall(r"\b\w+\.py\b", plan))
    there = {file.name for file in (ROOT / "src" / "unbroken").rglob("*.py")}
    assert files
    assert files - there == set()


# What a document must not use, and what it uses instead; scripts/retired_words.py has the words of code and prose.
WORDS = {
    r"whoever|nobody|somebody": "a sentence with a subject",
    r"for ever|forever": "the time",
}
CODE = re.compile(r"^```.*?^```|`[^`]*`|\]\([^)]*\)", re.DOTALL | re.MULTILINE)
EXEMPT = {ROOT / "docs" / "decisions" / "0021-floor-plan-and-names.md"}  # it is about words


@pytest.mark.parametrize("document", sorted({*DOCUMENTS} - EXEMPT), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_uses_the_words_of_the_glossary(document: Path) -> None:
    prose = CODE.sub("", document.read_text())
    found = {
        match[0]: f"use {better}"
        for word, better in WORDS.items()
        for match in re.finditer(rf"\b(?:{word})\b", prose, re.IGNORECASE)
    }
    assert found == {}


def test_the_changelog_knows_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout: there is no list of files to look at")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    hosts = re.compile(r"https?://\S*/" + r"simple|files\.python" + r"hosted|py" + r"pi\.org|registry\.npm" + "js")
    home = str(Path.home()) + os.sep
    for path in tracked():
        text = path.read_text(errors="replace")
        assert not hosts.search(text), path
        assert home not in text, path
        assert str(ROOT.parent) + os.sep not in text or len(ROOT.parts) < 4, (
            path
        )  # "/tmp" and "/srv" are the same everywhere
