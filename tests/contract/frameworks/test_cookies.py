"""Tokens in cookies, over HTTP: chosen by the client, useless to other sites, never cleared by an error."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import Morsel, SimpleCookie
from typing import Any

import httpx2
import pytest

from tests.support.faces import FACES, PASSWORD, Wire, authorization
from unbroken.server import MemorySessionStore, Sessions
from unbroken.server.http.cookies import Cookies

ALLOWED, FOREIGN = "https://app.example.com", "https://evil.example"
SCRIPT = {"x-unbroken": "1"}
LOGIN = {"username": "ada", "password": PASSWORD}
REFRESH, ACCESS, DEVICE = (
    "unbroken-refresh",
    "unbroken-access",
    "unbroken-device",
)  # as they are called without Secure, which http on loopback is


@dataclass
class Site:
    """A running server with cookies, and a browser of sorts: its jar keeps what it is given, as RFC 6265 says."""

    url: str
    sessions: Sessions = field(repr=False)
    now: list[float]

    def login(self, headers: dict[str, str] = SCRIPT, **more: Any) -> httpx2.Response:
        return httpx2.post(self.url + "/auth/login", json={**LOGIN, **more}, headers=headers, timeout=30)

    @contextmanager
    def logged_in(self, name: str = "ada", **more: Any) -> Iterator[httpx2.Client]:
        with httpx2.Client(base_url=self.url, timeout=30) as browser:
            response = browser.post("/auth/login", json={**LOGIN, "username": name, **more}, headers=SCRIPT)
            assert response.status_code == 200, response.text
            yield browser


def served(face: str, cookies: Cookies) -> Iterator[Site]:
    now = [1_800_000_000.0]
    sessions = Sessions(MemorySessionStore(), clock=lambda: now[0])
    with FACES[face](sessions, cookies=cookies, origins=[ALLOWED]) as port:
        yield Site(f"http://127.0.0.1:{port}", sessions, now)


@pytest.fixture(params=sorted(FACES), scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """The refresh token is in a cookie."""
    yield from served(request.param, Cookies(secure=False))


@pytest.fixture(params=sorted(FACES), scope="module")
def both(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Both tokens are in cookies."""
    yield from served(request.param, Cookies("both", secure=False))


def set_cookies(response: httpx2.Response) -> dict[str, Morsel[str]]:
    found: dict[str, Morsel[str]] = {}
    for line in response.headers.get_list("set-cookie"):
        found |= SimpleCookie(line)
    return found


def cookie_of(browser: httpx2.Client, name: str = REFRESH) -> str:
    """What the jar holds, however often a server has set it."""
    [value] = [cookie.value for cookie in browser.cookies.jar if cookie.name == name]
    return value or ""


def error(response: httpx2.Response) -> tuple[int, str, str]:
    body = response.json()
    assert body["error_description"]
    return response.status_code, body["error"], body.get("reason", "")


def raw(site: Site, head: str, body: bytes = b"") -> tuple[int, bytes, bytes]:
    """What no HTTP client sends: *head* as it is. Status, head and body of the response."""
    port = int(site.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
        lines = head.format(port=port) + f"\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        peer.sendall(lines.encode("latin-1") + body)
        response = b"".join(iter(lambda: peer.recv(65536), b""))
    top, _, rest = response.partition(b"\r\n\r\n")
    return int(top.split(b" ", 2)[1]), top.lower(), rest


# ---- login -----------------------------------------------------------------------------------------------------------


def test_a_login_that_asks_gets_its_refresh_token_in_a_cookie_and_nowhere_else(site: Site) -> None:
    response = site.login()
    body, found = response.json(), set_cookies(response)
    assert body.keys() == {"access_token", "token_type", "expires_in", "refresh_expires_in", "refresh_seq", "sid"}
    assert found.keys() == {REFRESH, DEVICE}
    assert (found[DEVICE]["path"], found[DEVICE]["httponly"], found[DEVICE]["samesite"]) == (
        "/auth/login", True, "Strict",
    )  # fmt: skip
    morsel = found[REFRESH]
    assert (morsel["path"], morsel["max-age"], morsel["samesite"]) == ("/auth", str(7 * 86400), "Strict")
    assert (morsel["httponly"], morsel["domain"], morsel["secure"]) == (True, "", "")
    assert site.sessions.inspect_refresh(morsel.value)
    assert body["sid"] == site.sessions.verify(body["access_token"]).sid
    assert response.headers["cache-control"] == "no-store"


def test_in_mode_both_no_body_shows_a_token(both: Site) -> None:
    response = both.login()
    found = set_cookies(response)
    assert response.json().keys() == {"expires_in", "refresh_expires_in", "refresh_seq", "sid"}
    assert (found[ACCESS]["path"], found[ACCESS]["httponly"], found[REFRESH]["path"]) == ("/", True, "/auth")
    assert both.sessions.verify(found[ACCESS].value).sid == response.json()["sid"]
    assert not any(morsel.value in response.text for morsel in found.values())


def test_a_native_client_of_the_same_server_gets_its_tokens_in_the_body(both: Site) -> None:
    with httpx2.Client(base_url=both.url, timeout=30) as native:
        response = native.post("/auth/login", json=LOGIN)
        tokens = response.json()
        assert "set-cookie" not in response.headers
        response = native.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert response.json()["refresh_seq"] == 1
        assert "set-cookie" not in response.headers
        bearer = authorization(response.json()["access_token"])
        assert native.post("/auth/sessions/revoke-others", headers=bearer).status_code == 200
        assert native.post("/auth/logout", headers=bearer).status_code == 204


@pytest.mark.parametrize(
    "origin", [FOREIGN, "null", "https://app.example.com.evil.example", "https://app.example.com:8"]
)
def test_another_sites_page_cannot_log_a_browser_in(site: Site, origin: str) -> None:
    asked = len(site.sessions.list_sessions("ada"))
    response = site.login({**SCRIPT, "origin": origin})
    assert error(response) == (403, "forbidden", "foreign_origin")
    assert "set-cookie" not in response.headers
    assert len(site.sessions.list_sessions("ada")) == asked, "it was refused before anybody looked at the password"


@pytest.mark.parametrize("fetched", ["same-origin", None])
def test_pages_of_the_server_and_of_allowed_origins_get_cookies_at_login(site: Site, fetched: str | None) -> None:
    said = {"sec-fetch-site": fetched} if fetched else {}
    for headers in (
        {"origin": site.url, **said},
        {"origin": ALLOWED},
        {"origin": ALLOWED, "sec-fetch-site": "same-site"},
    ):
        response = site.login({**SCRIPT, **headers})
        assert (response.status_code, set_cookies(response).keys()) == (200, {REFRESH, DEVICE})


def test_a_form_of_another_site_gets_no_cookie(site: Site) -> None:
    body = json.dumps({**LOGIN, "x": "="}).encode()
    posted = {"content-type": "text/plain", "origin": FOREIGN}
    response = httpx2.post(site.url + "/auth/login", content=body, headers=posted, timeout=30)
    assert response.status_code == 400
    assert "set-cookie" not in response.headers


def test_a_wrong_password_sets_and_clears_nothing(site: Site) -> None:
    with site.logged_in() as browser:
        response = browser.post("/auth/login", json={**LOGIN, "password": "wrong"}, headers=SCRIPT)
        assert response.status_code == 401
        assert "set-cookie" not in response.headers


# ---- refresh ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [{}, {"json": {}}, {"json": {"refresh_token": None}}], ids=["none", "empty", "null"])
def test_a_refresh_needs_no_body_and_moves_the_cookie_on(site: Site, body: dict[str, Any]) -> None:
    with site.logged_in() as browser:
        before = cookie_of(browser)
        response = browser.post("/auth/refresh", headers=SCRIPT, **body)
        assert (response.status_code, response.json()["refresh_seq"]) == (200, 1)
        assert "refresh_token" not in response.json()
        assert cookie_of(browser) not in ("", before)
        assert site.sessions.verify(response.json()["access_token"]).sid == response.json()["sid"]


def test_many_tabs_refresh_with_one_cookie_and_all_go_on(both: Site) -> None:
    with both.logged_in(coordinated=True) as browser:
        old = {REFRESH: cookie_of(browser)}
        responses = [httpx2.post(both.url + "/auth/refresh", headers=SCRIPT, cookies=old, timeout=30) for _ in range(3)]
        assert [response.json()["refresh_seq"] for response in responses] == [1, 1, 1], (
            "grace, though it said coordinated"
        )
        assert len({set_cookies(response)[REFRESH].value for response in responses}) == 1


@pytest.mark.parametrize("headers", [{}, {"origin": ALLOWED}, {"sec-fetch-site": "same-origin"}])
def test_a_cookie_without_the_header_is_403_and_spends_nothing(site: Site, headers: dict[str, str]) -> None:
    with site.logged_in() as browser:
        before = cookie_of(browser)
        response = browser.post("/auth/refresh", headers=headers)
        assert error(response) == (403, "forbidden", "no_header")
        assert "set-cookie" not in response.headers
        assert browser.post("/auth/refresh", headers=SCRIPT).json()["refresh_seq"] == 1
        assert cookie_of(browser) != before


@pytest.mark.parametrize(
    "headers",
    [{"origin": FOREIGN}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
     {"origin": FOREIGN, "sec-fetch-site": "same-site"}, {"origin": "null", "sec-fetch-site": "same-origin"}],
    ids=str,
)  # fmt: skip
def test_another_sites_page_cannot_refresh_nor_log_out(site: Site, headers: dict[str, str]) -> None:
    with site.logged_in() as browser:
        for path in ("/auth/refresh", "/auth/logout"):
            response = browser.post(path, headers={**SCRIPT, **headers})
            assert error(response) == (403, "forbidden", "foreign_origin")
            assert "set-cookie" not in response.headers
        assert browser.post("/auth/refresh", headers=SCRIPT).json()["refresh_seq"] == 1


def test_no_refused_refresh_clears_a_cookie(site: Site) -> None:
    with site.logged_in("loser") as browser:
        old = cookie_of(browser)
        for _ in range(2):
            assert browser.post("/auth/refresh", headers=SCRIPT).status_code == 200
            site.now[0] += 60
        late = httpx2.post(site.url + "/auth/refresh", headers=SCRIPT, cookies={REFRESH: old}, timeout=30)
        assert error(late) == (400, "invalid_grant", "reuse")
        dead = browser.post("/auth/refresh", headers=SCRIPT)
        assert error(dead)[:2] == (400, "invalid_grant")
        nonsense = httpx2.post(site.url + "/auth/refresh", headers=SCRIPT, cookies={REFRESH: "x" * 5000}, timeout=30)
        assert error(nonsense) == (400, "invalid_grant", "malformed")
        assert not [response for response in (late, dead, nonsense) if "set-cookie" in response.headers]


def test_without_any_token_the_response_says_so_and_is_no_end_of_a_session(site: Site) -> None:
    assert error(httpx2.post(site.url + "/auth/refresh", headers=SCRIPT, timeout=30)) == (
        400,
        "invalid_request",
        "no_refresh_token",
    )


def test_a_refresh_token_in_the_body_goes_before_the_cookie_and_is_answered_in_the_body(site: Site) -> None:
    own = site.sessions.create("native")
    with site.logged_in() as browser:
        response = browser.post("/auth/refresh", json={"refresh_token": own.refresh_token}, headers=SCRIPT)
        assert site.sessions.verify(response.json()["access_token"]).subject == "native"
        assert response.json()["refresh_token"]
        assert "set-cookie" not in response.headers


# ---- two cookies of one name -----------------------------------------------------------------------------------------


def cookies(*values: str, name: str = REFRESH) -> dict[str, str]:
    return {**SCRIPT, "cookie": "; ".join(f"{name}={value}" for value in values)}


def token(site: Site, subject: str) -> str:
    return site.sessions.create(subject).refresh_token or ""


def test_a_shadowed_cookie_is_found_behind_dead_and_foreign_ones(site: Site) -> None:
    good, ended = token(site, "ada"), token(site, "ada")
    site.sessions.logout(refresh_token=ended)
    for shadow in (ended, "junk", "", "rt_AAAA", good):
        for pair in ((shadow, good), (good, shadow)):
            response = httpx2.post(site.url + "/auth/refresh", headers=cookies(*pair), timeout=30)
            assert response.status_code == 200, (shadow, response.text)


def test_refresh_cookies_of_ended_sessions_alone_are_invalid_grant(site: Site) -> None:
    ended = [token(site, "over") for _ in range(2)]
    site.sessions.revoke_subject("over")
    assert error(httpx2.post(site.url + "/auth/refresh", headers=cookies(*ended), timeout=30))[:2] == (
        400,
        "invalid_grant",
    )
    assert (
        error(httpx2.post(site.url + "/auth/refresh", headers=cookies("junk", "rt_AAAA"), timeout=30))[1]
        == "invalid_grant"
    )


def test_an_old_refresh_cookie_beside_the_newest_is_not_taken_for_reuse(site: Site) -> None:
    tokens = [token(site, "shadow")]
    for _ in range(3):
        site.now[0] += 60
        tokens.append(site.sessions.refresh(tokens[-1]).refresh_token or "")
    site.now[0] += 60
    response = httpx2.post(site.url + "/auth/refresh", headers=cookies(tokens[0], tokens[-1]), timeout=30)
    assert (response.status_code, response.json()["refresh_seq"]) == (200, 4)
    assert site.sessions.list_sessions("shadow"), "it was not taken for a theft"


def test_a_session_cookie_set_by_a_sibling_site_does_not_replace_the_own_one(both: Site) -> None:
    own, tossed = both.sessions.create("ada"), both.sessions.create("mallory")
    pairs = [
        (tossed.refresh_token or "", own.refresh_token or ""),
        (own.refresh_token or "", tossed.refresh_token or ""),
    ]
    for pair in pairs:
        response = httpx2.post(both.url + "/auth/refresh", headers=cookies(*pair), timeout=30)
        assert error(response) == (400, "invalid_request", "ambiguous_cookies")
        assert "set-cookie" not in response.headers
    for pair in ((tossed.access_token, own.access_token), (own.access_token, tossed.access_token)):
        response = httpx2.get(both.url + "/auth/session", headers=cookies(*pair, name=ACCESS), timeout=30)
        assert error(response) == (400, "invalid_request", "ambiguous_cookies")
    assert httpx2.post(both.url + "/auth/logout", headers=cookies(*pairs[0]), timeout=30).status_code == 204
    assert not both.sessions.list_sessions("mallory"), "logging out ends both, and so helps"


def test_a_dead_or_older_access_cookie_beside_the_good_one_does_no_harm(both: Site) -> None:
    first = both.sessions.create("ada")
    both.now[0] += 1
    newer = both.sessions.refresh(first.refresh_token or "")
    for pair in ((first.access_token, newer.access_token), ("junk", newer.access_token), (newer.access_token, "junk")):
        response = httpx2.get(both.url + "/auth/session", headers=cookies(*pair, name=ACCESS), timeout=30)
        assert response.json()["exp"] == int(both.now[0]) + 1800
    both.now[0] += 4000
    response = httpx2.get(
        both.url + "/auth/session", headers=cookies("junk", newer.access_token, name=ACCESS), timeout=30
    )
    assert response.json()["reason"] == "expired", "which a client knows how to mend"


def test_a_flood_of_cookies_of_one_name_is_refused(site: Site) -> None:
    response = httpx2.post(
        site.url + "/auth/refresh", headers=cookies(*(f"v{number}" for number in range(5))), timeout=30
    )
    assert error(response) == (400, "invalid_request", "ambiguous_cookies")


@pytest.mark.parametrize(
    "name",
    ["\xa0unbroken-refresh", "unbroken-refresh\x85", "Unbroken-Refresh", "unbroken-refresh2", '"unbroken-refresh"'],
)
def test_a_name_that_only_looks_the_same_is_another_name(site: Site, name: str) -> None:
    head = f"POST /auth/refresh HTTP/1.1\r\nHost: 127.0.0.1:{{port}}\r\nX-Unbroken: 1\r\nCookie: {name}="
    status, top, body = raw(site, head + token(site, "ada"))
    assert status == 400
    assert json.loads(body).get("reason") == "no_refresh_token"
    assert b"set-cookie" not in top


@pytest.mark.parametrize(
    "site", ["starlette", "fastapi", "django-asgi"], indirect=True
)  # WSGI has one header of a name
def test_cookies_in_several_headers_are_all_seen(site: Site) -> None:
    head = "POST /auth/refresh HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Unbroken: 1\r\nCookie: a=b\r\nCookie: "
    status, top, body = raw(site, f"{head}{REFRESH}={token(site, 'ada')}; c=d")
    assert (status, json.loads(body)["refresh_seq"]) == (200, 1)
    assert b"set-cookie" in top


@pytest.mark.parametrize(
    "line",
    ["Origin: https://app.example.com\r\nOrigin: https://evil.example", "Origin: ", "Origin: https://APP.example.com"],
)
def test_a_malformed_origin_header_is_refused(site: Site, line: str) -> None:
    head = f"POST /auth/refresh HTTP/1.1\r\nHost: 127.0.0.1:{{port}}\r\nX-Unbroken: 1\r\n{line}\r\nCookie: {REFRESH}="
    status, top, _ = raw(site, head + token(site, "ada"))
    assert status in (400, 403)
    assert b"set-cookie" not in top


# ---- logout ----------------------------------------------------------------------------------------------------------


def test_a_logout_ends_the_session_and_clears_what_was_set(site: Site) -> None:
    with site.logged_in("leaver") as browser:
        response = browser.post("/auth/logout", headers=SCRIPT)
        assert response.status_code == 204
        assert (set_cookies(response)[REFRESH]["path"], set_cookies(response)[REFRESH]["max-age"]) == ("/auth", "0")
        assert [cookie.name for cookie in browser.cookies.jar] == [DEVICE], "which opens nothing"
        assert not site.sessions.list_sessions("leaver")


def test_a_logout_clears_both_cookies(both: Site) -> None:
    with both.logged_in("leaver") as browser:
        cleared = set_cookies(browser.post("/auth/logout", headers=SCRIPT))
        assert {name: (morsel["path"], morsel["max-age"]) for name, morsel in cleared.items()} == {
            REFRESH: ("/auth", "0"),
            ACCESS: ("/", "0"),
        }
        assert [cookie.name for cookie in browser.cookies.jar] == [DEVICE], "which opens nothing"
        assert not both.sessions.list_sessions("leaver")


def test_a_logout_by_cookie_without_the_header_is_403_and_ends_nothing(site: Site) -> None:
    with site.logged_in("stayer") as browser:
        response = browser.post("/auth/logout")
        assert error(response) == (403, "forbidden", "no_header")
        assert "set-cookie" not in response.headers
        assert site.sessions.list_sessions("stayer")


def test_a_logout_with_the_access_token_ends_the_cookies_session_too(site: Site) -> None:
    with site.logged_in("twice") as browser:
        access = browser.post("/auth/refresh", headers=SCRIPT).json()["access_token"]
        response = browser.post("/auth/logout", headers={**SCRIPT, **authorization(access)})
        assert (response.status_code, set_cookies(response).keys()) == (204, {REFRESH})
        assert not site.sessions.list_sessions("twice")


def test_a_logout_of_a_session_that_is_over_still_clears(site: Site) -> None:
    with site.logged_in("over") as browser:
        site.sessions.revoke_subject("over")
        assert set_cookies(browser.post("/auth/logout", headers=SCRIPT)).keys() == {REFRESH}
        assert browser.post("/auth/logout", headers=SCRIPT).status_code == 204, "and once more does no harm"


# ---- the access token in a cookie ------------------------------------------------------------------------------------


def test_a_get_request_with_a_cookie_needs_no_csrf_header(both: Site) -> None:
    with both.logged_in() as browser:
        assert browser.get("/auth/session").json()["sub"] == "ada"
        assert browser.get("/auth/session", headers={"origin": FOREIGN}).status_code == 200, "nobody there can read it"


def test_a_write_with_a_cookie_needs_the_csrf_header_and_an_allowed_origin(both: Site) -> None:
    with both.logged_in("writer") as browser:
        sid = browser.get("/auth/session").json()["sid"]
        for method, path in (("POST", "/auth/sessions/revoke-others"), ("DELETE", f"/auth/sessions/{sid}")):
            assert error(browser.request(method, path))[1:] == ("forbidden", "no_header")
            response = browser.request(method, path, headers={**SCRIPT, "origin": FOREIGN})
            assert error(response) == (403, "forbidden", "foreign_origin")
            assert browser.request(method, path, headers={**SCRIPT, "origin": ALLOWED}).status_code in (200, 204)


def test_a_bearer_token_goes_before_the_cookie_and_needs_no_header(both: Site) -> None:
    with both.logged_in() as browser:
        other = both.sessions.create("bob").access_token
        assert browser.get("/auth/session", headers=authorization(other)).json()["sub"] == "bob"
        assert browser.post("/auth/sessions/revoke-others", headers=authorization(other)).status_code == 200
        assert browser.get("/auth/session", headers=authorization("junk")).json()["reason"] == "malformed"


def test_an_expired_cookie_says_so_and_a_refresh_mends_it(both: Site) -> None:
    with both.logged_in() as browser:
        both.now[0] += 3600
        response = browser.get("/auth/session")
        assert (response.status_code, response.json()["reason"]) == (401, "expired")
        assert "set-cookie" not in response.headers
        assert browser.post("/auth/refresh", headers=SCRIPT).status_code == 200
        assert browser.get("/auth/session").json()["sub"] == "ada"


def test_in_mode_refresh_no_cookie_stands_for_an_access_token(site: Site) -> None:
    good = site.sessions.create("ada").access_token
    for name in (REFRESH, ACCESS):
        assert httpx2.get(site.url + "/auth/session", headers=cookies(good, name=name), timeout=30).status_code == 401


def test_the_token_endpoint_knows_no_cookies(both: Site) -> None:
    with both.logged_in() as browser:
        response = browser.post("/auth/token", data={"grant_type": "refresh_token"}, headers=SCRIPT)
        assert error(response)[:2] == (400, "invalid_request")


# ---- set up wrongly --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("face", sorted(FACES))
def test_insecure_cookies_are_for_this_machine_only(face: str) -> None:
    for site in served(face, Cookies(secure=False)):
        body = json.dumps(LOGIN).encode()
        head = (
            "POST /auth/login HTTP/1.1\r\nHost: shop.example:{port}\r\nX-Unbroken: 1\r\nContent-Type: application/json"
        )
        status, top, response = raw(site, head, body)
        assert status in (400, 403)  # some frameworks refuse the Host by themselves
        assert b"set-cookie" not in top
        assert PASSWORD.encode() not in response


@pytest.mark.parametrize("face", sorted(FACES))
def test_a_server_without_cookies_says_so_instead_of_showing_tokens_to_a_script(face: str) -> None:
    with FACES[face](Sessions(MemorySessionStore())) as port:
        response = httpx2.post(f"http://127.0.0.1:{port}/auth/login", json=LOGIN, headers=SCRIPT, timeout=30)
        assert error(response) == (400, "invalid_request", "")
        assert "X-Unbroken" in response.json()["error_description"]


@pytest.mark.parametrize("face", sorted(FACES))
def test_secure_cookies_have_the_prefixes_that_browsers_enforce(face: str) -> None:
    for site in served(face, Cookies("both")):
        response = site.login()
        found = set_cookies(response)
        assert found.keys() == {"__Host-unbroken-access", "__Secure-unbroken-refresh", "__Secure-unbroken-device"}
        assert [morsel["secure"] for morsel in found.values()] == [True] * 3
        pairs = "; ".join(f"{name}={morsel.value}" for name, morsel in found.items())
        with_cookies = {**SCRIPT, "cookie": pairs}
        assert httpx2.get(site.url + "/auth/session", headers=with_cookies, timeout=30).json()["sub"] == "ada"
        assert httpx2.post(site.url + "/auth/refresh", headers=with_cookies, timeout=30).json()["refresh_seq"] == 1


def test_a_logout_works_however_many_cookies_a_sibling_site_has_set(case_sensitive: Wire) -> None:
    secure = "__Secure-unbroken-refresh"
    response = case_sensitive.http.post("/auth/login", json={"username": "bob", "password": PASSWORD}, headers=SCRIPT)
    assert response.status_code == 200
    ours = dict(cookie.split(";")[0].split("=", 1) for cookie in response.headers.get_list("set-cookie"))
    case_sensitive.http.cookies.clear()
    tossed = "; ".join([f"{secure}={number}" for number in range(8)] + [f"{secure}={ours[secure]}"])
    assert (
        case_sensitive.http.post("/auth/refresh", headers={**SCRIPT, "cookie": tossed}).json()["reason"]
        == "ambiguous_cookies"
    )
    response = case_sensitive.http.post("/auth/logout", headers={**SCRIPT, "cookie": tossed})
    assert response.status_code == 204
    assert all("Max-Age=0" in cookie for cookie in response.headers.get_list("set-cookie"))
    assert case_sensitive.sessions.list_sessions("bob") == []
    case_sensitive.http.cookies.clear()
