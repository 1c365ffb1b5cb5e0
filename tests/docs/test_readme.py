"""The README in a fresh environment: its blocks as written, one after the other; and what a package index shows."""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_string
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import ROOT, examples
from tests.support.services import free_port

README = ROOT / "README.md"
PASSWORD = b"correct horse\n"
START_SECONDS = 60


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as it is published."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


class Fresh:
    """A new environment, with nothing in it but what the README installs, and a folder to work in."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder, self._wheel, self._port = folder, wheel, free_port()
        self._uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        subprocess.run([self._uv, "venv", "--quiet", str(folder / "env")], check=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("UNBROKEN_", "PYTHON"))}
        path = f"{folder}/env/bin{os.pathsep}{os.environ['PATH']}"
        self._environment = {**kept, "PATH": path, "UVICORN_PORT": str(self._port), "UNBROKEN_PORT": str(self._port)}
        self.url = f"http://127.0.0.1:{self._port}"

    def install(self, line: str) -> None:
        """Run ``pip install 'unbroken[…]'``: of the wheel that was built, and the rest as the machine gets packages."""
        [extras] = re.findall(r"unbroken\[(.*?)\]", line)
        python = f"{self.folder}/env/bin/python"
        wanted = f"unbroken[{extras}] @ {self._wheel.as_uri()}"
        subprocess.run([self._uv, "pip", "install", "--quiet", "--python", python, wanted], check=True, cwd=self.folder)

    def at_a_terminal(self, line: str, typed: bytes) -> int:
        """Run *line*, which asks for a password twice."""
        ours, theirs = pty.openpty()
        command = shlex.split(line)
        more: dict[str, Any] = {"cwd": self.folder, "env": self._environment, "start_new_session": True}
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, **more)
        os.close(theirs)
        for _ in range(2):
            shown = b""
            while not shown.rstrip().endswith(b":"):
                shown += os.read(ours, 1024)
            os.write(ours, typed)
        status: int = process.wait(60)
        os.close(ours)
        return status

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, check=False, timeout=60
        )

    @contextmanager
    def serving(self, line: str) -> Iterator[None]:
        """Run the server of *line* until the block ends."""
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(shlex.split(line), cwd=self.folder, env=self._environment, **quiet)
        try:
            ends = time.monotonic() + START_SECONDS
            while not self._responds():
                assert process.poll() is None, line
                assert time.monotonic() < ends, line
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(30)

    def _responds(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/auth/health", timeout=5) as response:
                return int(response.status) == 200
        except OSError:
            return False


def lines_of(block: str) -> list[str]:
    return block.strip().splitlines()


def test_the_blocks_run_as_written_in_a_fresh_environment(tmp_path: Path, wheel: Path) -> None:
    fresh = Fresh(tmp_path, wheel)
    client, server = examples(README)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    plain = [text for language, text in blocks if not language]
    install, add_user, start = lines_of(next(one for one in plain if "pip install" in one))
    (tmp_path / "app.py").write_text(server)
    fresh.install(install)
    assert fresh.at_a_terminal(add_user, PASSWORD) == 0
    client = client.replace("https://api.example.com", fresh.url).replace("~/.config", str(tmp_path))
    (tmp_path / "client.py").write_text(client + "\nprint(client.get(session.dialect.origins[0] + '/orders').json())\n")
    for _ in range(2):  # and again, as after a restart
        with fresh.serving(start):
            done = fresh.run("python", "client.py")
            assert (done.returncode, done.stdout) == (0, "['the orders of ada']\n"), done.stderr
    serve, *commands = lines_of(next(one for one in plain if "unbroken serve" in one))
    with fresh.serving(serve):
        for command in commands:
            done = fresh.run(*shlex.split(command))
            assert done.returncode == 0, (command, done.stdout, done.stderr)


# ---- what a package index shows --------------------------------------------------------------------------------------


def metadata(wheel: Path) -> tuple[dict[str, list[str]], str]:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        message = message_from_string(archive.read(name).decode())
    fields: dict[str, list[str]] = {}
    for field, value in message.items():
        fields.setdefault(field, []).append(value)
    return fields, message.get_payload()  # type: ignore[return-value]  # it has one part


def test_each_link_of_the_long_description_leads_to_a_page_of_the_site(wheel: Path) -> None:
    site = yaml_of_the_site()["site_url"]
    fields, text = metadata(wheel)
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    links += [url.partition(", ")[2] for url in fields["Project-URL"]]
    assert len(links) > 15
    assert [link for link in links if not link.startswith(site) or not is_page(link.removeprefix(site))] == []


def yaml_of_the_site() -> dict[str, str]:
    text = re.sub(r"!!python\S+", "", (ROOT / "mkdocs.yml").read_text())
    found: dict[str, str] = yaml.safe_load(text)
    return found


def is_page(path: str) -> bool:
    """Return whether the site has a page, or a picture, at *path*."""
    name = path.partition("#")[0].strip("/")
    docs, project = ROOT / "docs", ROOT / f"{name.removeprefix('project/')}.md"
    if name.startswith("project/"):
        return project.is_file()
    if name.startswith("source/"):
        return (ROOT / name.removeprefix("source/")).is_file()
    return name == "" or any((docs / one).is_file() for one in (name, f"{name}.md", f"{name}/README.md"))


def test_the_classifiers_name_the_frameworks_and_pythons(wheel: Path) -> None:
    found = metadata(wheel)[0]["Classifier"]
    for name in ("Django", "FastAPI", "Flask", "AsyncIO", "Trio", "Pytest"):
        assert f"Framework :: {name}" in found
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert (extras, "Programming Language :: Python :: 3.11" in found) == (">=3.11", True)
