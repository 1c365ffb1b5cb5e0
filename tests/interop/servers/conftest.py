"""Foreign servers as processes of their own: started, waited for, asked what they counted, stopped."""

from __future__ import annotations

import base64
import hashlib
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from tests.interop.servers import dialects
from tests.support.npm import node_modules
from unbroken import Dialect, Session

SERVERS = Path(__file__).parent / "programs"
PAST = 360  # seconds: all their access tokens live 300, and some servers tolerate clocks that differ by a few more


@dataclass(frozen=True)
class Foreign:
    """One foreign server: its script, its dialect, and whether it ends the family when an old token is reused."""

    script: str
    dialect: Callable[[str], Dialect]
    ends_the_family: bool


FOREIGN = {
    "django-oauth-toolkit": Foreign("oauth_toolkit.py", dialects.oauth_toolkit, True),
    "djangorestframework-simplejwt": Foreign("simple_jwt.py", dialects.simple_jwt, False),
    "Authlib": Foreign("authlib_flask.py", dialects.authlib, True),
    "flask-jwt-extended": Foreign("flask_jwt.py", dialects.flask_jwt, False),
    "oidc-provider": Foreign("oidc_provider.mjs", dialects.oidc_provider, True),
}


class Running:
    """A foreign server that runs, at ``url``; ``me`` is its protected endpoint."""

    def __init__(self, foreign: Foreign, port: int) -> None:
        self.foreign, self.url = foreign, f"http://127.0.0.1:{port}"
        self.me = self.url + "/me"
        self.dialect = foreign.dialect(self.url)

    def count(self) -> dict[str, int]:
        """The hits of its token endpoint, and the challenges it answered elsewhere."""
        return httpx2.get(self.url + "/count", timeout=30).json()

    def expire(self) -> None:
        """Its clock moves past the end of every access token."""
        httpx2.post(f"{self.url}/forward?seconds={PAST}", timeout=30).raise_for_status()

    def log_in(self, session: Session) -> None:
        if self.foreign.script.endswith(".mjs"):
            session.import_tokens(by_authorization_code(self.url))
        else:
            session.login("ada", "correct horse")


@pytest.fixture
def anyio_backend() -> str:
    """The servers are what differs here; both event loops have their turn elsewhere."""
    return "asyncio"


@pytest.fixture(scope="module", params=FOREIGN.values(), ids=FOREIGN)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Each of the foreign servers in turn, running."""
    folder = tmp_path_factory.mktemp("foreign")
    foreign: Foreign = request.param
    program = sys.executable
    if foreign.script.endswith(".mjs"):
        (folder / "node_modules").symlink_to(node_modules(SERVERS))
        program = "node"
    with process([program, str(SERVERS / foreign.script), "0", str(folder)], folder) as port:
        yield Running(foreign, port)


@contextmanager
def process(command: list[str], folder: Path) -> Iterator[int]:
    """*command* as a process that has written its port into *folder*. It ends with its standard input, or is killed."""
    with (
        (folder / "errors").open("wb") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=errors, stderr=errors, cwd=folder) as started,
    ):
        try:
            yield port_of(started, folder)
        finally:
            started.stdin.close()
            try:
                started.wait(5)
            except subprocess.TimeoutExpired:
                started.kill()


def port_of(started: subprocess.Popen[bytes], folder: Path) -> int:
    """The port that the process has written; fails with what the process said when it does not come up."""
    deadline = time.monotonic() + 60
    while not (folder / "port").exists():
        if started.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the server did not start:\n{(folder / 'errors').read_text(errors='replace')[-3000:]}")
        time.sleep(0.02)
    return int((folder / "port").read_text())


def by_authorization_code(url: str) -> dict[str, object]:
    """The token response of an OpenID Connect login (RFC 6749 §4.1, RFC 7636), its forms filled in by a script."""
    verifier = secrets.token_urlsafe(32)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    landing = "http://127.0.0.1/landed"
    wish = {
        "client_id": "app",
        "redirect_uri": landing,
        "response_type": "code",
        "scope": "openid offline_access",
        "prompt": "consent",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    forms = iter([{"prompt": "login", "login": "ada", "password": "any"}, {"prompt": "consent"}])
    with httpx2.Client(timeout=30) as browser:
        answer = browser.get(url + "/auth", params=wish)
        while not answer.headers.get("location", "").startswith(landing):
            there = answer.headers.get("location")
            answer = browser.get(answer.url.join(there)) if there else browser.post(answer.url, data=next(forms))
        [code] = parse_qs(urlsplit(answer.headers["location"]).query)["code"]
        grant = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier, "redirect_uri": landing}
        return browser.post(url + "/token", data={**grant, "client_id": "app"}).raise_for_status().json()
