"""The documents: their examples run, their links lead somewhere, and the repository keeps its own rules.

The pages that need a server to speak with have their tests in ``tests/docs``.
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#]+)#?([^)]*)\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target
            assert not heading or heading in headings(document.parent / target), f"{target}#{heading}"


def headings(document: Path) -> list[str]:
    """What links to the parts of *document* are called."""
    lines = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines]


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
        assert str(ROOT.parent) + os.sep not in text or len(ROOT.parts) < 3, path
