"""A second look at the wire, on every face of the server. Each test was once a defect."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.contract.frameworks import conftest
from tests.contract.frameworks.conftest import FACES, PASSWORD, Wire, authorization
from unbroken.server import Cookies, MemorySessionStore, Sessions

SCRIPT = {"x-unbroken": "1"}
REFRESH = "__Secure-unbroken-refresh"


@pytest.mark.parametrize("sid", ["%00", "a" * 500, "%ff", "%ed%a0%80"])
def test_what_can_be_no_sid_is_not_found(wire: Wire, sid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bearer = authorization(wire.login()["access_token"])

    def asked(*_: Any, **__: Any) -> Any:
        raise AssertionError("the store was asked for it")

    monkeypatch.setattr(wire.sessions.store, "sessions", asked)
    assert wire.http.delete(f"/auth/sessions/{sid}", headers=bearer).status_code == 404
    assert wire.http.patch(f"/auth/sessions/{sid}", json={"label": "x"}, headers=bearer).status_code == 404


def test_a_body_that_is_framed_wrongly_is_no_error_of_the_server(wire: Wire) -> None:
    head = "POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked"
    host, port = wire.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{head}\r\nconnection: close\r\n\r\nzz\r\n".encode())
        assert b" 400 " in connection.recv(1000).partition(b"\r\n")[0]


@pytest.fixture(params=sorted(FACES), scope="module")
def shop(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A server that keeps tokens in cookies, and whose directory knows capitals apart."""
    people = {"ada": "secret", "Ada": PASSWORD, "bob": PASSWORD}
    sessions = Sessions(MemorySessionStore())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conftest, "authenticate", lambda name, password: name if people.get(name) == password else None)
        with FACES[request.param](sessions, cookies=Cookies("both")) as port:
            url = f"http://127.0.0.1:{port}"
            with httpx2.Client(base_url=url) as http:
                yield Wire(url, http, sessions)


def test_an_account_that_is_called_nearly_the_same_buys_no_guesses(shop: Wire) -> None:
    def login(name: str, password: str) -> int:
        return shop.http.post("/auth/login", json={"username": name, "password": password}).status_code

    statuses = []
    for _ in range(3):
        statuses += [login("ada", "a guess") for _ in range(9)]
        login("Ada", PASSWORD)
    assert statuses.count(401) <= 10
    assert set(statuses[11:]) == {429}


def test_whoever_logs_out_is_logged_out_however_many_cookies_a_neighbour_has_set(shop: Wire) -> None:
    answer = shop.http.post("/auth/login", json={"username": "bob", "password": PASSWORD}, headers=SCRIPT)
    assert answer.status_code == 200
    ours = dict(cookie.split(";")[0].split("=", 1) for cookie in answer.headers.get_list("set-cookie"))
    shop.http.cookies.clear()
    tossed = "; ".join([f"{REFRESH}={number}" for number in range(8)] + [f"{REFRESH}={ours[REFRESH]}"])
    assert shop.http.post("/auth/refresh", headers={**SCRIPT, "cookie": tossed}).json()["reason"] == "ambiguous_cookies"
    answer = shop.http.post("/auth/logout", headers={**SCRIPT, "cookie": tossed})
    assert answer.status_code == 204
    assert all("Max-Age=0" in cookie for cookie in answer.headers.get_list("set-cookie"))
    assert shop.sessions.list_sessions("bob") == []
    shop.http.cookies.clear()
