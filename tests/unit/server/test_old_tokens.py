"""OldTokens: the tokens of an old system beside ours, and each of its refresh tokens once."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from unbroken.errors import ConfigurationError, InvalidGrant, InvalidToken, TryLater
from unbroken.server import MemorySessionStore, OldTokens, Policy, Sessions, SqliteSessionStore
from unbroken.testing import ManualClock

ISSUER = "https://api.example.com"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
def sessions(request: pytest.FixtureRequest, tmp_path: Any, clock: ManualClock) -> Iterator[Sessions]:
    store: Any = MemorySessionStore() if request.param == "memory" else SqliteSessionStore(tmp_path / "sessions.db")
    with Sessions(store, issuer=ISSUER, clock=clock, policy=Policy(grace=10)) as made:
        yield made


def read(prefix: str) -> Any:
    return lambda token: token.removeprefix(prefix) if token.startswith(prefix) else None


@pytest.fixture
def old(sessions: Sessions) -> OldTokens:
    return OldTokens(sessions, read_access=read("a-"), read_refresh=read("r-"))


def test_both_kinds_of_access_tokens_are_good(sessions: Sessions, old: OldTokens) -> None:
    ours = sessions.create("bob").access_token
    assert (old.verify("a-ada").subject, old.verify(ours).subject) == ("ada", "bob")
    assert old.verify_cached("a-ada") is None
    claims = old.verify("a-ada")
    assert (claims.client_id, claims.scope, claims.sid, claims.issuer) == ("old", "", "", ISSUER)


@pytest.mark.anyio
async def test_in_event_loops_too_with_async_functions(sessions: Sessions) -> None:
    async def subject(token: str) -> str | None:
        return "ada" if token == "good" else None

    old = OldTokens(sessions, read_access=subject, read_refresh=subject)
    assert (await old.averify("good")).subject == "ada"
    assert sessions.verify((await old.arefresh("good")).access_token).subject == "ada"
    with pytest.raises(InvalidToken):
        await old.averify("bad")


def test_what_is_neither_is_malformed(old: OldTokens) -> None:
    for token in ("junk", "", "r-ada", "a.b.c"):
        with pytest.raises(InvalidToken) as refused:
            old.verify(token)
        assert refused.value.reason == "malformed"
    with pytest.raises(InvalidGrant) as again:
        old.refresh("junk")
    assert again.value.reason == "malformed"


def test_a_token_that_says_it_is_ours_is_never_shown_to_the_application(sessions: Sessions) -> None:
    def encoded(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    seen = []
    old = OldTokens(sessions, read_access=lambda token: seen.append(token) or "mallory")  # type: ignore[func-returns-value]
    forged = f"{encoded({'typ': 'at+jwt', 'alg': 'none'})}.{encoded({'iss': ISSUER, 'sub': 'ada'})}."
    with pytest.raises(InvalidToken):
        old.verify(forged)
    revoked = sessions.create("ada")
    sessions.verify(revoked.access_token)
    sessions.revoke_subject("ada")
    with pytest.raises(InvalidToken):
        old.verify(revoked.access_token)
    assert seen == []


def test_an_old_refresh_token_begins_one_session_and_is_forgiven_within_the_grace(
    sessions: Sessions, old: OldTokens, clock: ManualClock
) -> None:
    first = old.refresh("r-ada")
    assert sessions.verify(first.access_token).subject == "ada"
    clock.advance(5)
    assert old.refresh("r-ada").refresh_token  # the response was lost
    clock.advance(6)
    for _ in range(3):
        with pytest.raises(InvalidGrant) as refused:
            old.refresh("r-ada")
        assert refused.value.reason == "used"
        clock.advance(86400)
    assert old.refresh("r-bob").refresh_token


def test_it_stays_used_for_as_long_as_it_may_live(sessions: Sessions, clock: ManualClock) -> None:
    old = OldTokens(sessions, read_refresh=read("r-"), lifetime=30 * 86400)
    old.refresh("r-ada")
    clock.advance(30 * 86400 - 60)
    with pytest.raises(InvalidGrant):
        old.refresh("r-ada")


def test_our_refresh_tokens_rotate_there_too(sessions: Sessions, old: OldTokens) -> None:
    moved = old.refresh("r-ada")
    again = old.refresh(str(moved.refresh_token))
    assert again.refresh_token != moved.refresh_token
    assert [info.subject for info in sessions.list_sessions("ada")] == ["ada"]


def test_many_at_once_are_all_served_and_later_none(sessions: Sessions, old: OldTokens, clock: ManualClock) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len({one.refresh_token for one in pool.map(old.refresh, ["r-ada"] * 8)}) == 8
    clock.advance(11)
    with pytest.raises(InvalidGrant):
        old.refresh("r-ada")


def test_a_function_that_fails_proves_nothing_and_spends_nothing(sessions: Sessions) -> None:
    is_down = [True]

    def subject(token: str) -> str | None:
        if is_down[0]:
            raise OSError("the old database is down")
        return "ada"

    old = OldTokens(sessions, read_access=subject, read_refresh=subject)
    for use in (old.verify, old.refresh):
        with pytest.raises(TryLater):
            use("x")
    is_down[0] = False
    assert old.refresh("x").refresh_token


@pytest.mark.parametrize("result", [7, "", b"ada", ["ada"], True])
def test_a_result_that_is_no_subject_is_named(sessions: Sessions, result: object) -> None:
    old = OldTokens(sessions, read_access=lambda token: result)  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigurationError, match="read_access must return a subject or None"):
        old.verify("x")


def test_wrong_arguments_are_named() -> None:
    sessions = Sessions(MemorySessionStore(), issuer=ISSUER)
    for wrong in ({"read_access": "x"}, {"read_refresh": 1}, {"lifetime": 0}, {"lifetime": "month"}):
        with pytest.raises(ConfigurationError):
            OldTokens(sessions, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="Sessions"):
        OldTokens("memory:")  # type: ignore[arg-type]
