"""The page about agents: its commands and programs run as they stand there, one after the other, in one home."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp.server.auth.provider import AccessToken
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.docs.pages import API, ROOT, examples, page, run
from tests.support.mcp_server import mcp_server, whoever
from tests.support.services import unavailable
from tests.support.strict_server import StrictServer
from unbroken.errors import InvalidToken
from unbroken.testing import LoopbackServer
from unbroken.testing.server import PASSWORD

PAGE = ROOT / "docs" / "agents.md"
ISSUER, MCP = "https://auth.example.com", "https://mcp.example.com/mcp"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, text in {
        "unbroken": f"#!/bin/sh\nexec '{sys.executable}' -m unbroken.cli \"$@\"\n",
        "password": PASSWORD + "\n",
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o700)
    return tmp_path


@pytest.fixture
def strict() -> Iterator[StrictServer]:
    """The authorization server of the page, and an API that names it."""
    server = StrictServer()

    async def resource(request: Request) -> Response:
        return JSONResponse({"resource": server.url, "authorization_servers": [server.url]})

    with server.run(Route("/.well-known/oauth-protected-resource", resource)):
        yield server


def test_the_commands_of_the_page_run_in_their_order(home: Path, api: LoopbackServer) -> None:
    if shutil.which("curl") is None:
        unavailable("curl", "apt-get install curl")
    [script] = examples(PAGE, "bash")
    (home / "agent.sh").write_text(script.replace(API, api.url))
    (home / "agent.sh").chmod(0o700)
    done = run("set -e\n" + page("agents.md", api.url, "sh"), home, "sh")
    assert done.returncode == 0, done.stderr
    assert '{"of":"ada"}' in done.stdout, "the agent's"
    assert (home / "orders.json").read_text() == '{"of":"ada"}'
    assert '"access_token"' in (home / "token.json").read_text()
    assert api.alarms() == 0


def test_the_programs_of_the_page_run_in_their_order(home: Path, api: LoopbackServer, strict: StrictServer) -> None:
    async def verify(token: str) -> AccessToken | None:
        if strict.is_good(token):
            return whoever(token)
        try:
            return whoever(token, api.sessions.verify(token).subject)
        except InvalidToken:
            return None

    with mcp_server(strict.url, verify) as url:
        code = page("agents.md", api.url).replace(MCP, url).replace(ISSUER, strict.url)
        code = code.replace(f'discover_resource("{api.url}/orders")', f'discover_resource("{strict.url}/orders")')
        person = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "from tests.support.mcp_visitor import Person\n"
            "person = Person()\nopen_browser, wait_for_callback = person.open, person.result\n"
        )
        login = f"unbroken login {api.url} --user ada --password-stdin < password"
        logins = f"{login} --as api && {login} --as tools --origin {url.removesuffix('/mcp')}"
        (home / "program.py").write_text(person + code)
        done = run(f"set -e\n{logins}\n'{sys.executable}' -W ignore program.py", home, "sh")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("{'of': 'ada'}") == 2
    assert done.stdout.count("['add']") == 2
    assert (strict.logins, strict.reuses, api.alarms()) == (1, 0, 0)
