"""Whether a subject is somebody still, as the application says at each refresh."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from unbroken.errors import StoreUnavailable
from unbroken.server import Endpoints, MemorySessionStore, Sessions
from unbroken.server.events import RefreshRejected, ServerEvent, SessionRevoked
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.messages import Request, Response

pytestmark = pytest.mark.anyio
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
PATHS = ["/auth/refresh", "/auth/token"]


class Shop:
    """Endpoints, with a session of ada's; what was asked and told."""

    def __init__(self, **settings: Any) -> None:
        self.gone, self.asked, self.events = set[str](), list[str](), list[ServerEvent]()
        self.sessions = Sessions(MemorySessionStore(), on_event=self.events.append)
        settings = {"is_active": self.is_active} | settings
        self.endpoints = Endpoints(self.sessions, lambda name, _: name, **settings)
        self.token = self.sessions.create("ada").refresh_token or ""
        self.sid = self.sessions.list_sessions("ada")[0].sid

    def is_active(self, subject: str) -> bool:
        self.asked.append(subject)
        return subject not in self.gone

    async def refresh(self, path: str = "/auth/refresh", token: str = "") -> Response:
        token = token or self.token
        body = json.dumps({"refresh_token": token}) if path == "/auth/refresh" else f"refresh_token={token}"
        kind = JSON if path == "/auth/refresh" else FORM
        body += "" if path == "/auth/refresh" else "&grant_type=refresh_token"
        response = await self.endpoints.handle(Request("POST", path, kind, body.encode(), "192.0.2.1"))
        assert response is not None
        return response


@pytest.mark.parametrize("path", PATHS)
async def test_a_refresh_of_an_active_subject_goes_on(path: str) -> None:
    shop = Shop()
    assert (await shop.refresh(path)).status == 200
    assert shop.asked == ["ada"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_deactivated_subject_is_logged_out_by_its_next_refresh(path: str) -> None:
    shop = Shop()
    shop.gone.add("ada")
    response = await shop.refresh(path)
    said = json.loads(response.body)
    assert (response.status, said["error"], said["reason"]) == (400, "invalid_grant", "revoked")
    assert shop.sessions.list_sessions("ada") == []
    assert SessionRevoked(shop.sid, "ada", "revoked") in shop.events
    assert RefreshRejected(reason="revoked", ip="192.0.2.1", user_agent="") in shop.events
    shop.gone.clear()
    assert (await shop.refresh(path)).status == 400, "who is somebody again logs in again"


async def test_is_active_is_called_for_a_refresh_token_in_a_cookie() -> None:
    shop = Shop(cookies=Cookies())
    shop.gone.add("ada")
    headers = {"cookie": f"__Secure-unbroken-refresh={shop.token}", "x-unbroken": "1"}
    response = await shop.endpoints.handle(Request("POST", "/auth/refresh", headers))
    assert response is not None
    assert json.loads(response.body)["reason"] == "revoked"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("trouble", [OSError("the directory is away"), StoreUnavailable("so is the store")])
async def test_a_refresh_spends_nothing_while_is_active_fails(path: str, trouble: Exception) -> None:
    def away(_: str) -> bool:
        raise trouble

    shop = Shop(is_active=away)
    response = await shop.refresh(path)
    assert (response.status, "retry-after" in response.headers) == (503, True)
    assert [info.sid for info in shop.sessions.list_sessions("ada")] == [shop.sid]
    assert shop.sessions.refresh(shop.token).refresh_seq == 1, "the same token is good for the first refresh"


async def test_an_is_active_that_returns_none_ends_no_session(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop(is_active=lambda _: None)
    assert (await shop.refresh()).status == 503
    assert "is_active must return True or False, not NoneType" in caplog.text
    assert len(shop.sessions.list_sessions("ada")) == 1


async def test_a_plain_function_runs_in_a_thread_and_an_async_one_in_the_loop() -> None:
    threads: list[int] = []

    def plain(_: str) -> bool:
        threads.append(threading.get_ident())
        return True

    async def in_the_loop(_: str) -> bool:
        return plain(_)

    for is_active in (plain, in_the_loop):
        assert (await Shop(is_active=is_active).refresh()).status == 200
    assert (threads[0] == threading.get_ident(), threads[1] == threading.get_ident()) == (False, True)


@pytest.mark.parametrize("path", PATHS)
async def test_is_active_is_not_called_for_a_bad_token(path: str) -> None:
    shop = Shop()
    shop.sessions.logout(refresh_token=shop.token)
    assert json.loads((await shop.refresh(path)).body)["reason"] == "logged_out"
    assert json.loads((await shop.refresh(path, "nonsense")).body)["reason"] == "malformed"
    assert shop.asked == []


async def test_without_the_setting_nothing_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(is_active=None)
    monkeypatch.delattr(Sessions, "ainspect_refresh")
    assert (await shop.refresh()).status == 200
