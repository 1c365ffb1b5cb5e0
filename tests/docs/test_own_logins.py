"""The page about logins of one's own, as one program: somebody signs up, follows a link, comes by another provider.

Passkeys need a browser: ``tests/browser/test_passkeys.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.docs.pages import API, page
from tests.support.backend import running
from tests.support.openid_provider import OpenIdProvider

SCRIPT = {"x-unbroken": "1"}
ADA = {"username": "ada@example.com", "password": "correct horse"}


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    with OpenIdProvider().run() as found:
        yield found


def program_of(url: str) -> dict[str, Any]:
    """All that the page defines, with cookies that work on loopback."""
    code = page("own-logins.md").replace(API, url).replace('cookies="both"', 'cookies=Cookies("both", secure=False)')
    made: dict[str, Any] = {"__name__": "own_logins"}
    exec(compile("from unbroken.server import Cookies\n" + code, "own-logins.md", "exec"), made)
    return made


@pytest.fixture
def program(provider: OpenIdProvider) -> dict[str, Any]:
    provider.refuses, provider.nonce = False, ""
    return program_of(provider.url)


@pytest.fixture
def visitor(program: dict[str, Any]) -> Iterator[httpx2.Client]:
    with running(program["app"]) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        yield http


def who(visitor: httpx2.Client) -> str:
    response = visitor.get("/auth/session", headers=SCRIPT)
    return response.json()["sub"] if response.status_code == 200 else ""


def test_who_signs_up_is_logged_in(visitor: httpx2.Client) -> None:
    assert visitor.post("/sign-up", json=ADA).json()["access_token"], "tokens for a program"
    again = visitor.post("/sign-up", json=ADA)
    assert (again.status_code, "already" in again.json()["error"]) == (400, True)
    assert visitor.post("/sign-up", json={**ADA, "username": "bob"}, headers=SCRIPT).status_code == 200
    assert who(visitor) == "bob", "and cookies for a page"


def test_a_link_logs_in_once(visitor: httpx2.Client, program: dict[str, Any]) -> None:
    mails: list[str] = []
    program["send_mail"] = lambda address, text: mails.append(text)
    visitor.post("/sign-up", json=ADA)
    for address in (ADA["username"], "nobody@example.com"):
        assert visitor.post("/mail/ask", json={"mail": address}).json() == {"sent": True}
    [mail] = mails
    secret = mail.partition("secret=")[2]
    shown = visitor.get("/mail/open", params={"secret": secret})
    assert re.findall('value="(.*?)"', shown.text) == [secret]
    assert who(visitor) == "", "a scanner that opens the link uses nothing up"
    arrived = visitor.post("/mail/login", data={"secret": secret})
    assert (arrived.status_code, arrived.headers["location"], who(visitor)) == (303, "/", ADA["username"])
    assert visitor.post("/mail/login", data={"secret": secret}).status_code == 400
    assert [info.label for info in program["sessions"].list_sessions()] == ["by mail", ""]


def follow(visitor: httpx2.Client, response: httpx2.Response) -> httpx2.Response:
    """Follow redirects as a browser does, up to the page that is not there."""
    while response.status_code in (302, 303) and response.headers["location"] != "/":
        response = visitor.get(response.headers["location"])
    return response


def test_another_provider_says_who_it_is(
    visitor: httpx2.Client, provider: OpenIdProvider, program: dict[str, Any]
) -> None:
    arrived = follow(visitor, visitor.get("/provider/login"))
    assert (arrived.status_code, arrived.headers["location"]) == (303, "/")
    assert who(visitor) == f"{provider.url}#ada-at-provider"
    assert visitor.post("/auth/refresh", headers=SCRIPT).status_code == 200, "from here on it is our session"
    assert visitor.post("/sign-out", json={"everywhere": True}, headers=SCRIPT).status_code == 204
    assert who(visitor) == ""
    assert program["sessions"].list_sessions() == []


def test_a_redirect_that_is_not_ours_logs_nobody_in(visitor: httpx2.Client, provider: OpenIdProvider) -> None:
    refused = visitor.get("/provider/callback", params={"code": "stolen", "state": "made up"})
    assert refused.status_code == 400
    provider.refuses = True
    assert follow(visitor, visitor.get("/provider/login")).json() == {"error": "access_denied"}
    assert who(visitor) == ""


def test_an_id_token_of_another_login_counts_for_nothing(provider: OpenIdProvider, program: dict[str, Any]) -> None:
    provider.nonce = "of another login"
    with running(program["app"]) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as visitor:
        arrived = follow(visitor, visitor.get("/provider/login"))
        assert (arrived.status_code >= 400, who(visitor)) == (True, "")
    assert program["sessions"].list_sessions() == []
