"""The page about the command line: its commands run as they stand there, and so does the configuration it shows."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.pages import API, ROOT, examples, page, run
from tests.support.services import unavailable
from unbroken.testing import LoopbackServer
from unbroken.testing.server import PASSWORD


@pytest.fixture
def shell(tmp_path: Path, api: LoopbackServer) -> Path:
    """A folder with the files that the page names, and ``unbroken`` on the path."""
    granted = api.sessions.create("bob").to_response()
    for name, text in {
        "unbroken": f"#!/bin/sh\nexec '{sys.executable}' -m unbroken.cli \"$@\"\n",
        "deploy.sh": '#!/bin/sh\ntest -n "$API_TOKEN" && echo deployed\n',
        "password": PASSWORD + "\n",
        "refresh-token": f"{granted['refresh_token']}\n",
        "docker-credential-unbroken": examples(ROOT / "docs" / "command-line.md", "bash")[0],
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o700)
    return tmp_path


def test_the_commands_of_a_page_run_in_their_order(shell: Path, api: LoopbackServer) -> None:
    if shutil.which("curl") is None:
        unavailable("curl", "apt-get install curl")
    done = run("set -e\n" + page("command-line.md", api.url, "sh"), shell, "sh")
    assert done.returncode == 0, done.stderr
    assert "deployed" in done.stdout
    assert b'{"of":"ada"}' in (shell / "response.txt").read_bytes()
    assert "work: logged out; the server confirmed it" in done.stdout


LOGIN = f"unbroken login {API} --as api --user ada --password-stdin < password >&2\n"


def test_the_helpers_of_the_page_work_as_configured(shell: Path, api: LoopbackServer) -> None:
    if shutil.which("git") is None:
        unavailable("git", "apt-get install git")
    [git], [docker], [kubectl] = (examples(ROOT / "docs" / "command-line.md", name) for name in ("ini", "json", "yaml"))
    (shell / ".gitconfig").write_text(git.replace("https://git.example.com", api.url))
    [helper] = json.loads(docker)["credHelpers"].values()
    command = " ".join(re.findall(r"(?:command:|args: \[)(.*?)]?$", kubectl, re.MULTILINE)).replace(",", "")
    host = api.url.removeprefix("http://")
    for asked, told in {
        f"printf 'protocol=http\\nhost={host}\\n\\n' | git credential fill": "username=oauth2",
        f"echo {api.url} | docker-credential-{helper} get": '"Username": "oauth2"',
        command: '"kind": "ExecCredential"',
    }.items():
        done = run(f"set -e\n{LOGIN.replace(API, api.url)}{asked}", shell, "sh")
        assert told in done.stdout, done.stderr
