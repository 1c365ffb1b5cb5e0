"""A neighbour, such as blog.example.com, plants cookies: the user stays in his own session, or is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import httpx2
import pytest

from tests.support.attacks import Attacks
from tests.support.faces import FACES, PASSWORD
from unbroken._base64 import encode
from unbroken.server import Cookies, MemorySessionStore, ServerEvent, Sessions
from unbroken.server.core.events import ReuseDetected

SCRIPT = {"x-unbroken": "1"}
REFRESH, ACCESS = "unbroken-refresh", "unbroken-access"


@dataclass
class Site:
    url: str
    sessions: Sessions
    now: list[float]

    def login(self, name: str) -> dict[str, str]:
        """The cookies of a browser in which *name* has logged in."""
        with httpx2.Client(base_url=self.url, timeout=30) as browser:
            login = {"username": name, "password": PASSWORD}
            assert browser.post("/auth/login", json=login, headers=SCRIPT).status_code == 200
            return {cookie.name: cookie.value or "" for cookie in browser.cookies.jar}

    def refresh(self, *cookies: tuple[str, str]) -> httpx2.Response:
        header = "; ".join(f"{name}={value}" for name, value in cookies)
        return httpx2.post(self.url + "/auth/refresh", headers={**SCRIPT, "cookie": header}, timeout=30)

    def sid_of(self, name: str) -> str:
        return self.sessions.list_sessions(name)[0].sid


@pytest.fixture(params=sorted(FACES))
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    now = [1_800_000_000.0]
    sessions = Sessions(MemorySessionStore(), clock=lambda: now[0])
    with FACES[request.param](sessions, cookies=Cookies("both", secure=False), rate_limit=None) as port:
        yield Site(f"http://127.0.0.1:{port}", sessions, now)


def test_a_planted_refresh_cookie_moves_nobody_to_another_session(site: Site, attacks: Attacks) -> None:
    ada, eve = site.login("ada"), site.login("eve")
    for late in (0.0, 3600.0):  # also when the access token has expired
        site.now[0] += late
        attacks.try_one()
        response = site.refresh((ACCESS, ada[ACCESS]), (REFRESH, eve[REFRESH]))
        assert (response.status_code, response.json()["reason"]) == (400, "ambiguous_cookies")
        assert "set-cookie" not in response.headers, "nothing was changed"
    for order in permutations([(ACCESS, ada[ACCESS]), (REFRESH, eve[REFRESH]), (REFRESH, ada[REFRESH])]):
        attacks.try_one()
        response = site.refresh(*order)
        assert response.status_code == 200, response.text
        assert response.json()["sid"] == site.sid_of("ada"), "the user's own cookie counts"
        ada = {**ada, **{cookie.name: cookie.value or "" for cookie in response.cookies.jar}}
    assert site.refresh((ACCESS, eve[ACCESS]), (REFRESH, eve[REFRESH])).status_code == 200, "nothing of hers was spent"


def test_a_planted_cookie_takes_nobodys_place_after_a_logout(site: Site, attacks: Attacks) -> None:
    ada, eve = site.login("ada"), site.login("eve")
    site.sessions.revoke(site.sid_of("ada"))
    for order in permutations([(ACCESS, ada[ACCESS]), (REFRESH, eve[REFRESH]), (REFRESH, ada[REFRESH])]):
        attacks.try_one()
        response = site.refresh(*order)
        assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")
        assert "set-cookie" not in response.headers
    attacks.try_one()
    assert site.refresh((ACCESS, ada[ACCESS]), (REFRESH, eve[REFRESH])).json()["reason"] == "ambiguous_cookies"


def test_an_access_cookie_of_a_retired_key_still_says_whose_browser_it_is(site: Site, attacks: Attacks) -> None:
    ada, eve = site.login("ada"), site.login("eve")
    [signing] = [key.kid for key in site.sessions.keyring().records if key.use == "sign"]
    site.sessions.retire_key(signing)
    attacks.try_one()
    assert site.refresh((ACCESS, ada[ACCESS]), (REFRESH, eve[REFRESH])).json()["reason"] == "ambiguous_cookies"
    assert site.refresh((ACCESS, ada[ACCESS]), (REFRESH, ada[REFRESH])).json()["sid"] == site.sid_of("ada")


JUNK = ["x", "a.b.c", "..", *(f"a.{encode(payload)}.c" for payload in (b"{}", b"[1]", b'{"sid":1}', b"{"))]


def test_a_junk_access_cookie_does_not_hinder_a_refresh(site: Site, attacks: Attacks) -> None:
    ada = site.login("ada")
    for junk in JUNK:
        attacks.try_one()
        response = site.refresh((ACCESS, junk), (REFRESH, ada[REFRESH]))
        assert (response.status_code, response.json().get("sid")) == (200, site.sid_of("ada"))


def test_used_cookies_of_one_session_are_what_the_newest_of_them_is(site: Site, attacks: Attacks) -> None:
    """A thief plants what he has copied long ago, twice; or a browser that has lost a response has a leftover."""
    events: list[ServerEvent] = []
    site.sessions.add_listener(events.append)
    for order in permutations(range(3)):
        attacks.try_one()
        tokens = _generations(site, "ada", 5)
        copied = [tokens[number] for number in order]
        response = site.refresh(*((REFRESH, token) for token in copied))
        assert (response.status_code, response.json()["reason"]) == (400, "reuse"), "as one of them alone would be"
        assert not site.sessions.list_sessions("ada")
        assert isinstance(events[-2], ReuseDetected)
        assert events[-2].subject == "ada"
    for order in permutations(range(3)):
        attacks.try_one()
        tokens = _generations(site, "ada", 3)  # the response that had the newest is lost
        response = site.refresh(*((REFRESH, tokens[number]) for number in order))
        assert (response.status_code, response.json()["refresh_seq"]) == (200, 3), response.text
        site.sessions.revoke_subject("ada")


def test_the_newest_usable_cookie_of_one_session_counts(site: Site, attacks: Attacks) -> None:
    for order in permutations(range(3)):
        attacks.try_one()
        tokens = _generations(site, "ada", 2, pause=1.0)  # all of them are good: within the grace
        response = site.refresh(*((REFRESH, tokens[number]) for number in order))
        assert (response.status_code, response.json()["refresh_seq"]) == (200, 3)
        site.sessions.revoke_subject("ada")


def test_a_leftover_of_a_session_that_has_expired_hinders_nobody(site: Site, attacks: Attacks) -> None:
    [old] = _generations(site, "ada", 0)
    site.now[0] += site.sessions.policy.refresh_ttl + 1.0
    [own] = _generations(site, "ada", 0)
    for pair in ((old, own), (own, old)):
        attacks.try_one()
        response = site.refresh(*((REFRESH, token) for token in pair))
        assert response.status_code == 200, response.text


def _generations(site: Site, name: str, number: int, pause: float = 60.0) -> list[str]:
    """Return the refresh tokens of a new session that was refreshed so often."""
    tokens = [site.sessions.create(name).refresh_token or ""]
    for _ in range(number):
        site.now[0] += pause
        tokens.append(site.sessions.refresh(tokens[-1]).refresh_token or "")
    site.now[0] += pause
    return tokens
