"""Rights: a token of a third party, or of a narrow scope, does what it is for; a right that was taken away is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from tests.support.attacks import Attacks
from tests.support.faces import FACES, PASSWORD, authorization
from unbroken.server import MemorySessionStore, MfaRequired, Sessions

JSON = {"content-type": "application/json"}


@dataclass
class Place:
    """A server whose scopes can be changed, and plain HTTP to it."""

    http: httpx2.Client
    sessions: Sessions
    rights: set[str] = field(default_factory=lambda: {"read", "write", "introspect", "sessions"})

    def tokens(self, scope: str = "", client_id: str = "", **more: Any) -> dict[str, Any]:
        login = {"username": "ada", "password": PASSWORD, "scope": scope, **more}
        response = self.http.post("/auth/login", json=login | ({"client_id": client_id} if client_id else {}))
        assert response.status_code == 200, response.text
        return response.json()

    def narrowed(self, tokens: dict[str, Any], scope: str, client_id: str = "") -> dict[str, Any]:
        form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "scope": scope}
        return self.http.post("/auth/token", data=form | ({"client_id": client_id} if client_id else {})).json()


@contextmanager
def place_of(face: str, **settings: Any) -> Iterator[Place]:
    sessions = Sessions(MemorySessionStore(), issuer="https://id.example.com", audience="shop")
    with ExitStack() as held:
        rights: set[str] = set()
        options = {"scopes_of": lambda _: list(rights), "rate_limit": None, **settings}
        port = held.enter_context(FACES[face](sessions, **options))
        http = held.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30))
        place = Place(http, sessions)
        rights |= place.rights
        place.rights = rights
        yield place


@pytest.fixture(params=sorted(FACES))
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with place_of(request.param) as found:
        yield found


def management(place: Place, bearer: str, sid: str) -> list[httpx2.Response]:
    """Every way to manage an account's sessions, or to carry a right elsewhere."""
    headers = authorization(bearer)
    return [
        place.http.get("/auth/sessions", headers=headers),
        place.http.patch(f"/auth/sessions/{sid}", json={"label": "x"}, headers=headers),
        place.http.delete(f"/auth/sessions/{sid}", headers=headers),
        place.http.post("/auth/sessions/revoke-others", headers=headers),
    ]


def test_a_narrow_token_manages_no_sessions(place: Place, attacks: Attacks) -> None:
    victim = place.tokens(label="the user's own")
    sid = place.sessions.verify(victim["access_token"]).sid
    third, whole = place.tokens("read", "third"), place.tokens("read sessions", "third")
    narrow = {
        "a third party's": place.tokens(client_id="third")["access_token"],
        "a third party's with a scope": third["access_token"],
        "a wide one that was narrowed": place.narrowed(whole, "read", "third")["access_token"],
        "our own with a scope": place.tokens("read")["access_token"],
        "our own with all scopes but one": place.tokens("read write introspect")["access_token"],
        "one with a similar client": place.tokens(client_id="First-Party")["access_token"],
        "one with a similar scope": place.tokens("read", "first-party ")["access_token"],
    }
    for name, bearer in narrow.items():
        for response in management(place, bearer, sid):
            attacks.try_one()
            assert (response.status_code, response.json()["error"]) == (403, "insufficient_scope"), name
            assert response.json()["scope"] == "sessions"
            assert 'scope="sessions"' in response.headers["www-authenticate"]
        assert "the user's own" not in str([response.text for response in management(place, bearer, sid)])
    for bearer in (narrow["a third party's"], third["access_token"], narrow["a wide one that was narrowed"]):
        attacks.try_one()
        assert place.http.post("/auth/ticket", headers=authorization(bearer)).status_code == 403
    assert place.http.get("/auth/session", headers=authorization(victim["access_token"])).status_code == 200


def test_a_token_without_a_scope_or_with_the_scope_sessions_manages_sessions(place: Place, attacks: Attacks) -> None:
    for scope, client_id in (("", ""), ("sessions", "third"), ("read sessions", "")):
        bearer = place.tokens(scope, client_id)
        other = place.sessions.verify(place.tokens()["access_token"]).sid
        attacks.try_one()
        done = management(place, bearer["access_token"], other)
        assert [response.status_code for response in done] == [200, 200, 204, 200]
    third = place.tokens("read", "third")["access_token"]
    own = place.sessions.verify(third).sid
    assert place.http.delete(f"/auth/sessions/{own}", headers=authorization(third)).status_code == 204, "a logout"


def test_a_third_party_asks_about_its_own_tokens_alone(place: Place, attacks: Attacks) -> None:
    own, others = place.tokens("read", "third"), [place.tokens(), place.tokens("read"), place.tokens("read", "fourth")]
    asked = place.http.post("/auth/introspect", data={"token": own["refresh_token"]},
                            headers=authorization(own["access_token"]))  # fmt: skip
    assert asked.json()["active"] is True
    for tokens in others:
        for kind in ("access_token", "refresh_token"):
            attacks.try_one()
            headers = authorization(own["access_token"])
            asked = place.http.post("/auth/introspect", data={"token": tokens[kind]}, headers=headers)
            assert asked.json() == {"active": False}


def test_a_client_uses_and_ends_its_own_sessions_alone(place: Place, attacks: Attacks) -> None:
    token = place.tokens("read", "third")["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": token}
    for more in ({}, {"client_id": "fourth"}, {"client_id": "first-party"}, {"client_id": "Third"}, {"client_id": ""}):
        attacks.try_many(2)
        for response in (
            place.http.post("/auth/token", data={**form, **more}),
            place.http.post("/auth/refresh", json={"refresh_token": token, **more}),
        ):
            assert (response.status_code, response.json()["reason"]) == (400, "wrong_client")
    for wrong in ("fourth", "first-party"):
        attacks.try_one()
        response = place.http.post("/auth/revoke", data={"token": token, "client_id": wrong})
        assert (response.status_code, response.json()["reason"]) == (400, "wrong_client")
    for basic in ("fourth:", "third:"):  # one client in the form, another in the header
        attacks.try_one()
        response = place.http.post("/auth/token", data={**form, "client_id": "fifth"}, auth=tuple(basic.split(":")))
        assert response.status_code == 400
    assert place.http.post("/auth/token", data={**form, "client_id": "third"}).json()["refresh_seq"] == 1
    again = place.tokens("read", "third")["refresh_token"]
    assert place.http.post("/auth/refresh", json={"refresh_token": again, "client_id": "third"}).status_code == 200


def test_a_right_that_was_taken_away_is_in_no_new_token(place: Place, attacks: Attacks) -> None:
    tokens = place.tokens("read write")
    only = place.tokens("write")
    access = tokens["access_token"]
    place.rights.discard("write")
    attacks.try_one()
    ticket = place.http.post("/auth/ticket", headers=authorization(access)).json()["ticket"]
    assert place.sessions.redeem(ticket).scope == "read"
    attacks.try_one()
    asked = place.http.post("/auth/token", data={"grant_type": "refresh_token", "scope": "write",
                                                 "refresh_token": tokens["refresh_token"]})  # fmt: skip
    assert (asked.status_code, asked.json()["error"]) == (400, "invalid_scope")
    attacks.try_one()
    fresh = place.http.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
    assert (fresh["scope"], place.sessions.verify(fresh["access_token"]).scope) == ("read", "read")
    attacks.try_one()
    gone = place.http.post("/auth/refresh", json={"refresh_token": only["refresh_token"]}).json()
    assert gone["scope"] == "", "the session lives on, and its response says that it has no right"
    attacks.try_one()
    sid = place.sessions.verify(gone["access_token"]).sid
    assert {response.status_code for response in management(place, gone["access_token"], "other")} == {403}
    assert len(place.sessions.list_sessions()) == 2, "and nobody's session has ended"
    assert sid in {info.sid for info in place.sessions.list_sessions()}
    place.rights.add("write")
    assert place.http.post("/auth/refresh", json={"refresh_token": gone["refresh_token"]}).json()["scope"] == "write"
    fresh = place.http.post("/auth/refresh", json={"refresh_token": fresh["refresh_token"]}).json()
    assert fresh["scope"] == "read write", "nothing was lost"


@pytest.mark.parametrize("face", sorted(FACES))
def test_a_right_that_is_taken_away_before_the_code_is_not_granted(face: str, attacks: Attacks) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.support.faces.authenticate", lambda name, _password: MfaRequired(name))
        with place_of(face, verify_mfa=lambda _subject, _kind, code: code == "123456") as place:
            login = {"username": "ada", "password": PASSWORD, "scope": "read write"}
            asked = place.http.post("/auth/login", json=login)
            assert asked.status_code == 403
            place.rights.discard("write")
            step = {"mfa_token": asked.json()["mfa_token"], "code": "123456"}
            attacks.try_one()
            place.rights.discard("read")
            refused = place.http.post("/auth/login/step", json=step)
            assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope"), "nothing of it is left"
            assert place.sessions.list_sessions() == []
            place.rights.add("read")
            attacks.try_one()
            assert place.http.post("/auth/login/step", json=step).json()["scope"] == "read"


def test_no_json_is_sniffed_or_stored(place: Place, attacks: Attacks) -> None:
    token = place.tokens()["access_token"]
    narrow = place.tokens("read")["access_token"]
    responses = [
        *management(place, token, "unknown"),
        *management(place, narrow, "unknown"),
        *management(place, "forged", "unknown"),
        place.http.get("/auth/session"),
        place.http.get("/auth/health"),
        place.http.get("/auth/health/ready"),
        place.http.get("/auth/revocations", headers=authorization(narrow)),
        place.http.post("/auth/login", content=b"{", headers=JSON),
        place.http.post("/auth/login", content=b'{"username":"a","username":"ada","password":"x"}', headers=JSON),
        place.http.post("/auth/login", json={"username": "ada", "password": "wrong"}),
        place.http.post("/auth/refresh", json={"refresh_token": "rt_x"}),
        place.http.post("/auth/token", data={"grant_type": "x"}),
        place.http.post("/auth/login", content=b"x" * 70_000, headers=JSON),
        place.http.post("/auth/ticket", headers=authorization(token)),
        place.http.post("/auth/introspect", data={"token": "x"}, headers=authorization(token)),
    ]
    public = [place.http.get(f"/.well-known/{name}") for name in ("jwks.json", "oauth-authorization-server")]
    for response in (*responses, *public):
        if "json" not in response.headers.get("content-type", ""):
            continue
        attacks.try_one()
        assert response.headers["x-content-type-options"] == "nosniff", response.request.url
        assert response in public or response.headers["cache-control"] == "no-store", response.request.url
