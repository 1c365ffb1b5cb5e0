"""Our server as clients meet it that never heard of it: over HTTP, its store in a file, its issuer its own URL."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette

from tests.support.backend import PASSWORD, running
from tests.support.npm import node_modules
from unbroken._concurrency import run_sync
from unbroken.server import Sessions, SqliteSessionStore
from unbroken.server.keys.keyring import new_mac_key, new_signing_key
from unbroken.starlette import routes

PROGRAMS = Path(__file__).parent / "programs"
AUDIENCE = "shop"
CLIENT = "app"
METADATA = "/.well-known/oauth-authorization-server"


class Server:
    """Our server at ``url``. ``hits`` counts requests by path."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions, self.url = sessions, sessions.issuer
        self.token_url, self.revoke_url = self.url + "/auth/token", self.url + "/auth/revoke"
        self.introspect_url, self.me = self.url + "/auth/introspect", self.url + "/auth/session"
        self.hits: Counter[str] = Counter()

    def login(self, subject: str = "ada", scope: str = "read", client_id: str = CLIENT) -> dict[str, Any]:
        """A token response, as any login gives it."""
        about = {"username": subject, "password": PASSWORD, "scope": scope, "client_id": client_id}
        return httpx2.post(self.url + "/auth/login", json=about, timeout=30).raise_for_status().json()

    def expired(self, **about: str) -> dict[str, Any]:
        """The same, as a client sees it whose token has to be refreshed."""
        return {**self.login(**about), "expires_at": time.time() - 10}

    def sid(self, access_token: str) -> str:
        """The session of an access token."""
        return self.sessions.verify(access_token).sid

    def alarms(self) -> int:
        """How many sessions were ended because a refresh token was used twice."""
        return sum(info.revoked_why == "reuse" for info in self.sessions.list_sessions(include_revoked=True))


@pytest.fixture(scope="module", params=["EdDSA", "ES256"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store, made = SqliteSessionStore(tmp_path_factory.mktemp("server") / "sessions.db"), list[Any]()
    run_sync(store.save_keys([new_signing_key(request.param, 0.0, 0.0), new_mac_key(1, 0.0, 0.0)]))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        [(server, endpoints)] = made
        server.hits[scope["path"]] += 1
        await endpoints(scope, receive, send)

    with running(app) as port:
        sessions = Sessions(store, issuer=f"http://127.0.0.1:{port}", audience=AUDIENCE)
        endpoints = Starlette(routes=routes(sessions, authenticate, password_grant=True, scopes_of=scopes_of))
        made.append((Server(sessions), endpoints))
        yield made[0][0]
    store.close()


@pytest.fixture(autouse=True)
def _no_alarm(server: Server) -> Iterator[None]:
    """No honest client ever looks like a thief."""
    before = server.alarms()
    yield
    assert server.alarms() == before


def authenticate(name: str, password: str) -> str | None:
    return name if password == PASSWORD else None


def scopes_of(subject: str) -> tuple[str, ...]:
    return ("introspect",) if subject == "service" else ("read", "write")


def together(work: Any, times: int = 8) -> list[Any]:
    """What *work* gives in so many threads that begin at once."""
    found, ready = [], threading.Barrier(times)

    def run() -> None:
        ready.wait(10)
        found.append(work())

    threads = [threading.Thread(target=run) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def by_node(program: str, **told: Any) -> dict[str, Any]:
    """What one of the programs finds out, which is *told* this."""
    with tempfile.TemporaryDirectory() as folder:
        for file in PROGRAMS.glob("*.mjs"):
            shutil.copy(file, folder)
        (Path(folder) / "node_modules").symlink_to(node_modules(PROGRAMS))
        command = ["node", str(Path(folder) / program)]
        done = subprocess.run(command, input=json.dumps(told), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
