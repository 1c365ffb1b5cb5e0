"""Several services on one store: what one of them issued is worthless at the others, and they see nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.attacks import Attacks
from tests.support.faces import FACES, PASSWORD, authorization
from unbroken._concurrency import run_sync
from unbroken.errors import InvalidGrant, InvalidToken, LoginRefused
from unbroken.server import MemorySessionStore, Sessions, SessionStore, open_store
from unbroken.server.core.session_info import NewSession
from unbroken.server.events import SessionCreated
from unbroken.server.login.authenticator import MfaRequired
from unbroken.server.login.mfa import MfaTokens

ISSUER = "https://id.example.com"
OTHERS = {"another audience": (ISSUER, "admin"), "another issuer": ("https://other.example.com", "shop")}


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStore]:
    if request.param == "memory":
        yield MemorySessionStore()
        return
    urls: dict[str, Callable[[], str]] = {
        "sqlite": lambda: f"sqlite:///{tmp_path}/app.db",
        "postgres": lambda: request.getfixturevalue("database"),
        "redis": lambda: f"{request.getfixturevalue('redis').url}?prefix={tmp_path.name}",
    }
    opened = open_store(urls[request.param]())
    yield opened
    opened.close()


@dataclass
class Pair:
    here: Sessions
    there: Sessions


@pytest.fixture(params=OTHERS)
def pair(request: pytest.FixtureRequest, store: SessionStore) -> Pair:
    issuer, audience = OTHERS[request.param]
    here, there = Sessions(store, issuer=ISSUER, audience="shop"), Sessions(store, issuer=issuer, audience=audience)
    for sessions in (here, there):
        sessions.keyring()
    return Pair(here, there)


def test_a_refresh_token_is_good_at_its_own_service_alone(pair: Pair, attacks: Attacks) -> None:
    token = pair.here.create("ada", scope="read").refresh_token or ""
    for options in ({}, {"idempotency_key": "a"}, {"scope": "read"}):
        attacks.try_one()
        with pytest.raises(InvalidGrant) as caught:
            pair.there.refresh(token, **options)
        assert caught.value.reason == "wrong_audience"
    token = pair.here.refresh(token).refresh_token or ""
    attacks.try_one()
    assert pair.there.inspect_refresh(token) is None
    attacks.try_one()
    assert pair.there.logout(refresh_token=token) is False
    attacks.try_one()
    fresh = pair.here.refresh(token)
    assert pair.there.logout(access_token=fresh.access_token) is False
    assert fresh.refresh_seq == 2, "nothing was spent"


def test_tickets_and_mfa_tokens_are_good_at_their_own_service_alone(pair: Pair, attacks: Attacks) -> None:
    ticket = pair.here.ticket(pair.here.create("ada").access_token).text
    attacks.try_one()
    with pytest.raises(InvalidToken):
        pair.there.redeem(ticket)
    assert pair.here.redeem(ticket).subject == "ada"
    token = run_sync(MfaTokens(pair.here).issue(MfaRequired("ada"), b"", b"", NewSession()))
    attacks.try_one()
    with pytest.raises(LoginRefused):
        run_sync(MfaTokens(pair.there).read(token))
    assert run_sync(MfaTokens(pair.here).read(token)).subject == "ada"


def test_one_service_changes_no_session_of_another(pair: Pair, attacks: Attacks) -> None:
    pair.here.create("ada", label="laptop")
    own = pair.there.create("ada")
    sid = pair.there.verify(own.access_token).sid
    [other] = [info.sid for info in pair.here.list_sessions("ada") if info.sid != sid]
    attacks.try_many(3)
    assert pair.there.rename(other, "stolen", subject="ada") is None
    assert pair.there.revoke(other, subject="ada") is False
    assert pair.there.revoke_others("ada", keep=sid) == 0
    [info] = [info for info in pair.here.list_sessions("ada") if info.sid == other]
    assert (info.label, info.revoked_at) == ("laptop", None)
    third = pair.there.create("ada")
    assert pair.there.revoke_others("ada", keep=sid) == 1, "its own others"
    with pytest.raises(InvalidToken):
        pair.there.verify(third.access_token)
    waiting = run_sync(MfaTokens(pair.there).issue(MfaRequired("ada"), b"", b"", NewSession()))
    assert pair.there.revoke_others("ada", keep=sid) == 0
    attacks.try_one()
    with pytest.raises(LoginRefused):
        run_sync(MfaTokens(pair.there).read(waiting))
    assert pair.here.revoke_subject("ada") == 2, "an application that ends an account ends all of it"


def test_a_device_that_logged_in_elsewhere_is_new_here(attacks: Attacks) -> None:
    store, seen = MemorySessionStore(), list[Any]()
    here, there = (Sessions(store, issuer=url, on_event=seen.append) for url in (ISSUER, "https://other.example.com"))
    there.create("ada")
    attacks.try_one()
    here.create("ada")
    here.create("ada")
    assert [event.new_device for event in seen if isinstance(event, SessionCreated)] == [True, True, False]


def test_a_session_from_before_belongs_to_the_first_service_that_refreshes_it(pair: Pair, attacks: Attacks) -> None:
    token = pair.here.create("ada").refresh_token or ""
    store = pair.here.store
    [row] = run_sync(store.sessions("ada"))
    older = replace(row, issuer="", audience="", label="older")  # as a version without these columns has left it
    assert run_sync(store.compare_and_set(row, older, pair.here.clock() + 60))
    pair.here._issuer._rows.clear()
    fresh = pair.here.refresh(token)
    assert fresh.refresh_seq == 1
    attacks.try_one()
    with pytest.raises(InvalidGrant):
        pair.there.refresh(fresh.refresh_token or "")
    again = pair.here.refresh(fresh.refresh_token or "")
    assert pair.here.refresh(again.refresh_token or "").refresh_seq == 3


@pytest.mark.parametrize("face", FACES)
def test_the_endpoints_of_one_service_say_nothing_about_another(face: str, attacks: Attacks) -> None:
    store = MemorySessionStore()
    here = Sessions(store, issuer=ISSUER, audience="shop")
    victim = here.create("ada", label="at the other service")
    sid = here.verify(victim.access_token).sid
    there = Sessions(store, issuer=ISSUER, audience="admin")
    with ExitStack() as held:
        port = held.enter_context(FACES[face](there, scopes_of=lambda _: ("introspect", "sessions"), rate_limit=None))
        http = held.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30))
        login = {"username": "ada", "password": PASSWORD}
        own = http.post("/auth/login", json=login).json()["access_token"]
        wide = http.post("/auth/login", json={**login, "scope": "introspect sessions"}).json()["access_token"]
        for token in (victim.access_token, victim.refresh_token or ""):
            for bearer in (own, wide):
                attacks.try_one()
                asked = http.post("/auth/introspect", data={"token": token}, headers=authorization(bearer))
                assert asked.json() == {"active": False}
            attacks.try_one()
            assert http.post("/auth/revoke", data={"token": token}).status_code == 200
            attacks.try_one()
            http.post("/auth/logout", json={"refresh_token": token})
        form = {"grant_type": "refresh_token", "refresh_token": victim.refresh_token}
        in_json = http.post("/auth/refresh", json={"refresh_token": victim.refresh_token})
        for asked in (in_json, http.post("/auth/token", data=form)):
            attacks.try_one()
            assert asked.json()["reason"] == "wrong_audience"
        for bearer in (own, wide):
            listed = http.get("/auth/sessions", headers=authorization(bearer))
            attacks.try_many(3)
            assert sid not in listed.text
            assert "other service" not in listed.text
            assert http.delete(f"/auth/sessions/{sid}", headers=authorization(bearer)).status_code == 404
            renamed = http.patch(f"/auth/sessions/{sid}", json={"label": "x"}, headers=authorization(bearer))
            assert renamed.status_code == 404
        attacks.try_one()
        http.post("/auth/sessions/revoke-others", headers=authorization(own))
        attacks.try_one()
        assert http.get("/auth/session", headers=authorization(victim.access_token)).status_code == 401
    assert here.verify(victim.access_token).sid == sid
    assert here.refresh(victim.refresh_token or "").refresh_seq == 1
