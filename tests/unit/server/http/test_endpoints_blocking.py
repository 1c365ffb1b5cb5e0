"""The endpoints without an event loop, as Flask and Django use them; and blocking calls in the middle of a loop."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from unbroken._concurrency import in_sync_context, run_sync
from unbroken.server import Accounts, Endpoints, MemorySessionStore, Sessions, SqliteSessionStore
from unbroken.server.http.messages import Request, Response
from unbroken.server.stores import open_store

JSON = {"content-type": "application/json"}


def post(endpoints: Endpoints, path: str, **fields: Any) -> Response:
    response = endpoints.handle_blocking(Request("POST", path, JSON, json.dumps(fields).encode()))
    assert response is not None
    return response


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_session_lives_and_ends_without_an_event_loop(kind: str, tmp_path: Path) -> None:
    store = open_store("memory:" if kind == "memory" else f"sqlite:///{tmp_path}/app.db")
    accounts = Accounts(store)
    accounts.add("ada", "correct horse")
    endpoints = Endpoints(Sessions(store), accounts.authenticate, scopes_of=lambda _: ["read"])
    login = post(endpoints, "/auth/login", username="ada", password="correct horse", scope="read")
    tokens = json.loads(login.body)
    again = json.loads(post(endpoints, "/auth/refresh", refresh_token=tokens["refresh_token"]).body)
    assert again["refresh_seq"] == 1
    assert post(endpoints, "/auth/logout", refresh_token=again["refresh_token"]).status == 204
    assert post(endpoints, "/auth/refresh", refresh_token=again["refresh_token"]).status == 400
    assert post(endpoints, "/auth/login", username="ada", password="wrong").status == 401


def test_an_async_authenticate_is_refused_without_an_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    async def authenticate(name: str, _: str) -> str:
        return name

    response = post(
        Endpoints(Sessions(MemorySessionStore()), authenticate), "/auth/login", username="ada", password="x"
    )
    assert response.status == 503
    assert "plain one" in caplog.text


def test_the_blocking_mode_belongs_to_a_thread_and_ends_with_the_call() -> None:
    async def ask() -> tuple[bool, bool]:
        elsewhere: list[bool] = []
        thread = threading.Thread(target=lambda: elsewhere.append(in_sync_context()))
        thread.start()
        thread.join()
        return in_sync_context(), elsewhere[0]

    assert run_sync(ask()) == (True, False)
    assert not in_sync_context()
    with pytest.raises(RuntimeError):
        run_sync(anyio.lowlevel.checkpoint())
    assert not in_sync_context()


def test_a_blocking_call_in_an_event_loop_does_not_wait_for_its_own_thread(tmp_path: Path) -> None:
    sessions = Sessions(SqliteSessionStore(tmp_path / "app.db"))

    async def main() -> list[str]:
        granted = await sessions.acreate("ada")
        return [sessions.verify(granted.access_token).subject, (await sessions.averify(granted.access_token)).subject]

    assert anyio.run(main) == ["ada", "ada"]
