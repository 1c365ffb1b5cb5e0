"""Rights follow the person: what was taken away is in no token that is made afterwards, and nobody is logged out by it.

Each attack is that of somebody who was demoted and wants to keep, or to get back, what is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.attacks import Attacks
from tests.support.clock import ServerClock
from tests.support.faces import FACES, PASSWORD, authorization
from tests.support.services import postgres_server, redis_server
from unbroken.errors import InvalidScope, TryLater
from unbroken.server import MemorySessionStore, Sessions, open_store


@dataclass
class Directory:
    """What the application knows of a person, and may forget, change, or fail to tell."""

    scopes: list[str] = field(default_factory=lambda: ["read", "write", "admin"])
    role: str = "admin"
    fails: bool = False

    def scopes_of(self, _subject: str) -> list[str]:
        if self.fails:
            raise ConnectionError("the directory does not respond")
        return self.scopes

    def claims(self, _info: object) -> dict[str, object]:
        return {"role": self.role}

    def demote(self, *scopes: str) -> None:
        self.scopes, self.role = list(scopes), "clerk"

    def promote(self) -> None:
        self.scopes, self.role = ["read", "write", "admin"], "admin"


@dataclass
class Place:
    http: httpx2.Client
    sessions: Sessions
    directory: Directory

    def login(self, **more: Any) -> httpx2.Response:
        return self.http.post("/auth/login", json={"username": "ada", "password": PASSWORD, **more})

    def refresh(self, token: str, **more: Any) -> httpx2.Response:
        headers = {"idempotency-key": more.pop("key")} if "key" in more else {}
        form = {"grant_type": "refresh_token", "refresh_token": token, **more}
        return self.http.post("/auth/token", data=form, headers=headers)

    def status(self, path: str, bearer: str) -> int:
        return self.http.get(path, headers=authorization(bearer)).status_code


@contextmanager
def place_of(face: str, **settings: Any) -> Iterator[Place]:
    directory = Directory()
    with Sessions(MemorySessionStore(), issuer="https://id.example.com", claims=directory.claims) as sessions:
        options = {"scopes_of": directory.scopes_of, "rate_limit": None, "password_grant": True, **settings}
        with ExitStack() as held:
            port = held.enter_context(FACES[face](sessions, **options))
            http = held.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30))
            yield Place(http, sessions, directory)


@pytest.fixture(params=sorted(FACES))
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with place_of(request.param) as found:
        yield found


@pytest.mark.parametrize("asked", ["", "read write admin"])
def test_what_was_taken_away_is_gone_with_the_next_refresh_and_nobody_is_logged_out(
    place: Place, attacks: Attacks, asked: str
) -> None:
    tokens = place.login(scope=asked).json()
    assert tokens["scope"] == "read write admin", "without a scope: all that the person may have"
    for left in ("read", "read write", "", "admin"):
        place.directory.demote(*left.split())
        attacks.try_one()
        response = place.refresh(tokens["refresh_token"])
        tokens = response.json()
        assert (response.status_code, tokens["scope"]) == (200, left), "an empty scope is said too"
        claims = place.sessions.verify(tokens["access_token"])
        assert (claims.scope, claims.extra["role"]) == (left, "clerk")
    place.directory.promote()
    assert place.refresh(tokens["refresh_token"]).json()["scope"] == "read write admin"


def test_a_demoted_person_asks_for_more_than_is_left(place: Place, attacks: Attacks) -> None:
    tokens = place.login().json()
    place.directory.demote("read")
    attacks.try_one()
    asked = place.refresh(tokens["refresh_token"], scope="read admin")
    assert asked.json()["scope"] == "read", "the allowed part, and the response says so"
    for wanted in ("admin", "write admin", "root"):
        attacks.try_one()
        refused = place.refresh(asked.json()["refresh_token"], scope=wanted)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
    for more in ({"scope": "admin"}, {"scope": "root admin"}):
        attacks.try_one()
        assert place.login(**more).json()["error"] == "invalid_scope"
    attacks.try_one()
    assert place.login(scope="admin read").json()["scope"] == "read"
    assert place.refresh(asked.json()["refresh_token"]).status_code == 200, "and the session is as it was"


def test_a_session_that_asked_for_a_part_never_gets_more(place: Place, attacks: Attacks) -> None:
    place.directory.demote("read", "write")
    tokens = place.login(scope="read").json()
    partly = place.login(scope="read admin").json()  # it was given a part of what it asked for
    place.directory.promote()
    for one in (tokens, partly):
        attacks.try_one()
        fresh = place.refresh(one["refresh_token"]).json()
        assert fresh["scope"] == "read"
        attacks.try_one()
        assert place.refresh(fresh["refresh_token"], scope="read write").json()["error"] == "invalid_scope"


def test_an_answer_that_is_repeated_has_no_more_than_the_first(place: Place, attacks: Attacks) -> None:
    for more in ({}, {"key": "one-key"}):
        place.directory.promote()
        old = place.login().json()["refresh_token"]
        place.directory.demote("read")
        first = place.refresh(old, **more).json()
        assert first["scope"] == "read"
        place.directory.promote()
        attacks.try_one()
        assert place.refresh(old, **more).json()["scope"] == "read"
        place.directory.demote()
        attacks.try_one()
        assert place.refresh(old, **more).json()["scope"] == "", "less is always possible"
        place.directory.promote()
        assert place.refresh(first["refresh_token"]).json()["scope"] == "read write admin"


def test_a_part_that_a_refresh_asked_for_is_not_widened_by_repeating_it(place: Place, attacks: Attacks) -> None:
    old = place.login().json()["refresh_token"]
    assert place.refresh(old, scope="read").json()["scope"] == "read"
    for more in ({}, {"scope": "read write admin"}):
        attacks.try_one()
        again = place.refresh(old, **more).json()
        assert again["scope"] == "read"
        assert place.status("/auth/sessions", again["access_token"]) == 403


def test_other_clients_run_the_server_only_if_they_ask_for_it(place: Place, attacks: Attacks) -> None:
    place.directory.scopes = ["read", "sessions", "introspect"]
    own, others = place.login().json(), place.login(client_id="app").json()
    assert (own["scope"], others["scope"]) == ("read sessions introspect", "read")
    for path in ("/auth/sessions", "/auth/revocations"):
        attacks.try_one()
        assert place.status(path, others["access_token"]) == 403
    attacks.try_one()
    assert place.refresh(others["refresh_token"], client_id="app", scope="sessions").json()["error"] == "invalid_scope"
    asked = place.login(client_id="app", scope="read sessions").json()
    assert place.status("/auth/sessions", asked["access_token"]) == 200


def test_whoever_asks_about_a_token_hears_what_is_left(place: Place, attacks: Attacks) -> None:
    tokens = place.login().json()
    place.directory.demote("read")
    for kind in ("access_token", "refresh_token"):
        attacks.try_one()
        headers = authorization(tokens["access_token"])
        asked = place.http.post("/auth/introspect", data={"token": tokens[kind]}, headers=headers).json()
        assert (asked["active"], asked["scope"]) == (True, "read")
    attacks.try_one()
    ticket = place.http.post("/auth/ticket", headers=authorization(tokens["access_token"])).json()["ticket"]
    assert place.sessions.redeem(ticket).scope == "read"
    attacks.try_one()
    assert place.sessions.revoke_subject("ada") == 1, "and at once, where this is asked for"
    assert place.status("/auth/session", tokens["access_token"]) == 401


def test_a_directory_that_does_not_respond_spends_nothing(place: Place, attacks: Attacks) -> None:
    tokens = place.login().json()
    place.directory.fails = True
    for _ in range(3):
        attacks.try_one()
        assert place.refresh(tokens["refresh_token"]).status_code == 503
    attacks.try_one()
    assert place.login().status_code == 503
    place.directory.fails = False
    assert place.refresh(tokens["refresh_token"]).json()["refresh_seq"] == 1
    place.directory.scopes = ["two words"]
    attacks.try_one()
    assert place.refresh(tokens["refresh_token"]).status_code == 503, "a mistake of the application is no verdict"


# ---- every store -----------------------------------------------------------------------------------------------------


@contextmanager
def store_url(kind: str, folder: Path) -> Iterator[str]:
    if kind == "postgres":
        with postgres_server() as server:
            yield server.url
    elif kind == "redis":
        with redis_server() as server:
            yield server.url
    else:
        yield "memory:" if kind == "memory" else f"sqlite:///{folder / 'app.db'}"


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres", "redis"])
@pytest.mark.parametrize("style", ["blocking", "asyncio"])
def test_no_store_forgets_what_was_answered(kind: str, style: str, tmp_path: Path, attacks: Attacks) -> None:
    directory, clock = Directory(), ServerClock()

    async def scopes_of(subject: str) -> list[str]:
        return directory.scopes_of(subject)

    async def claims(info: object) -> dict[str, object]:
        return directory.claims(info)

    plain = style == "blocking"
    hooks: dict[str, Any] = {"scopes_of": directory.scopes_of if plain else scopes_of}
    hooks["claims"] = directory.claims if plain else claims
    with store_url(kind, tmp_path) as url:
        store = open_store(url)

        def nodes() -> list[Sessions]:  # two processes over one store
            more: dict[str, Any] = {"encryption_key": "none"} if kind in ("postgres", "redis") else {}
            return [Sessions(store, clock=clock, **hooks, **more) for _ in range(2)]

        def run(call: Any, *args: Any, **more: Any) -> Any:
            if plain:
                return call(*args, **more)
            import anyio

            async def main() -> Any:
                try:
                    return await getattr(call.__self__, "a" + call.__name__)(*args, **more)
                finally:
                    await store.aclose()

            return anyio.run(main)

        one, other = nodes()
        for coordinated in (False, True):
            directory.promote()
            old = run(one.create, "ada", coordinated=coordinated).refresh_token
            directory.demote("read")
            first = run(one.refresh, old, idempotency_key="k")
            directory.promote()
            attacks.try_one()
            again = run(other.refresh, old, idempotency_key="k")
            assert (first.scope, again.scope) == ("read", "read"), "by another process too"
            attacks.try_one()
            assert run(one.refresh, again.refresh_token).scope == "read write admin"
        narrow = run(one.create, "ada", scope="read write root")
        assert narrow.scope == "read write"
        directory.demote()
        attacks.try_one()
        assert run(one.refresh, narrow.refresh_token).scope == ""
        with pytest.raises(InvalidScope):
            run(one.create, "ada", scope="root")
        directory.fails = True
        attacks.try_one()
        with pytest.raises(TryLater):
            run(one.create, "ada")
        store.close()
