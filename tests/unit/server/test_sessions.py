"""Sessions over both stores, from login to the end.

Modules: server/grants/refresh_grant.py, server/grants/session_creator.py.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import random
import shutil
import sqlite3
import string
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from tests.support.clock import ServerClock
from unbroken._concurrency import run_sync
from unbroken.errors import (
    ConfigurationError,
    InvalidGrant,
    InvalidScope,
    InvalidToken,
    LoginRefused,
    Refused,
    StoreUnavailable,
    TryLater,
)
from unbroken.server import Caller, MemorySessionStore, Policy, Sessions, SqliteSessionStore
from unbroken.server.core.rotation import SessionRow
from unbroken.server.events import ReuseDetected, ServerEvent, SessionCreated, SessionRefreshed, SessionRevoked

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA")


@pytest.fixture
def clock() -> ServerClock:
    return ServerClock(time.time())  # other libraries verify our tokens by the time of day


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made = MemorySessionStore() if request.param == "memory" else SqliteSessionStore(tmp_path / "s.db")
    yield made
    made.close()


@pytest.fixture
def events() -> list[ServerEvent]:
    return []


@pytest.fixture
def sessions(store: Any, clock: ServerClock, events: list[ServerEvent]) -> Sessions:
    return Sessions(store, clock=clock, on_event=events.append)


def refused(sessions: Sessions, token: str | None, **about: Any) -> str:
    with pytest.raises(InvalidGrant) as caught:
        sessions.refresh(token or "", **about)
    return caught.value.reason


def dead(sessions: Sessions, token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        sessions.verify(token)
    return caught.value.reason


# ---- the good case ---------------------------------------------------------------------------------------------------


def test_a_login_gives_tokens_that_say_who_and_for_how_long(sessions: Sessions) -> None:
    granted = sessions.create("ada", scope="read write read", client_id="web")
    claims = sessions.verify(granted.access_token)
    assert (claims.subject, claims.scope, claims.client_id, claims.generation) == ("ada", "read write", "web", 0)
    response = granted.to_response()
    assert (response["expires_in"], response["refresh_expires_in"], response["refresh_seq"]) == (1800, 604800, 0)


def test_a_refresh_moves_on_and_leaves_the_old_access_token_good(sessions: Sessions, clock: ServerClock) -> None:
    first = sessions.create("ada")
    clock.now += 60
    second = sessions.refresh(first.refresh_token or "")
    assert second.refresh_seq == 1
    assert sessions.verify(first.access_token).sid == sessions.verify(second.access_token).sid
    assert dead_after(sessions, clock, first.access_token, 1741) == "expired"


def dead_after(sessions: Sessions, clock: ServerClock, token: str, seconds: float) -> str:
    clock.now += seconds
    return dead(sessions, token)


def test_sixteen_threads_with_one_token_get_one_successor(sessions: Sessions, events: list[ServerEvent]) -> None:
    token = sessions.create("ada").refresh_token or ""
    with ThreadPoolExecutor(16) as pool:
        successors = set(pool.map(lambda _: sessions.refresh(token).refresh_token, range(16)))
    assert len(successors) == 1
    verdicts = [event.verdict for event in events if isinstance(event, SessionRefreshed)]
    assert sorted(verdicts) == ["converged"] * 15 + ["rotated"]


def test_after_a_lost_response_the_same_idempotency_key_gets_the_same_token(
    sessions: Sessions, clock: ServerClock
) -> None:
    token = sessions.create("ada", coordinated=True).refresh_token or ""
    first = sessions.refresh(token, idempotency_key="one").refresh_token
    clock.now += 3600
    assert sessions.refresh(token, idempotency_key="one").refresh_token == first


def test_another_idempotency_key_gets_a_branch_and_only_one_branch_goes_on(
    sessions: Sessions, events: list[ServerEvent]
) -> None:
    token = sessions.create("ada", coordinated=True).refresh_token or ""
    one, two = sessions.refresh(token, idempotency_key="one"), sessions.refresh(token, idempotency_key="two")
    assert one.refresh_token != two.refresh_token
    third = sessions.refresh(two.refresh_token or "", idempotency_key="three")
    assert refused(sessions, one.refresh_token, idempotency_key="four", caller=Caller("203.0.113.9")) == "reuse"
    assert dead(sessions, third.access_token) == "revoked", "at once"
    assert refused(sessions, third.refresh_token) == "reuse"
    [alarm] = [event for event in events if isinstance(event, ReuseDetected)]
    assert (alarm.subject, alarm.ip) == ("ada", "203.0.113.9")
    assert alarm.evidence


def test_the_first_use_settles_the_branch_where_that_is_wanted(store: Any, clock: ServerClock) -> None:
    sessions = Sessions(store, clock=clock, confirm_first_use=True)
    token = sessions.create("ada", coordinated=True).refresh_token or ""
    sessions.verify(sessions.refresh(token, idempotency_key="one").access_token)
    assert refused(sessions, token, idempotency_key="two") == "reuse"


def test_idle_and_absolute_expiry(sessions: Sessions, clock: ServerClock) -> None:
    token = sessions.create("ada").refresh_token or ""
    clock.now += 7 * 86400
    assert refused(sessions, token) == "expired"
    granted = sessions.create("ada")
    for _ in range(17):
        clock.now += 5 * 86400
        granted = sessions.refresh(granted.refresh_token or "")
    clock.now += 5 * 86400 - 60
    granted = sessions.refresh(granted.refresh_token or "")
    assert granted.to_response()["expires_in"] == 60, "no access token outlives its session"
    clock.now += 61
    assert refused(sessions, granted.refresh_token) == "expired"


# ---- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["access", "refresh", "both", "an old refresh token", "an expired access token"])
def test_logout_by_any_genuine_token_ends_the_session_at_once(sessions: Sessions, clock: ServerClock, how: str) -> None:
    first = sessions.create("ada")
    now = sessions.refresh(first.refresh_token or "")
    if how == "an expired access token":
        clock.now += 1900
        now = sessions.refresh(now.refresh_token or "")
    tokens = {
        "access": {"access_token": now.access_token},
        "refresh": {"refresh_token": now.refresh_token},
        "both": {"access_token": now.access_token, "refresh_token": now.refresh_token},
        "an old refresh token": {"refresh_token": first.refresh_token},
        "an expired access token": {"access_token": first.access_token},
    }[how]
    assert sessions.logout(**tokens) is True
    assert dead(sessions, now.access_token) == "revoked"
    assert refused(sessions, now.refresh_token) == "logged_out"
    assert sessions.logout(refresh_token="nonsense", access_token="nonsense") is False


def test_revoke_ends_one_session_revoke_others_all_but_one_and_revoke_subject_all(
    sessions: Sessions, events: list[ServerEvent]
) -> None:
    granted = [sessions.create("ada") for _ in range(4)] + [sessions.create("bob")]
    sids = [sessions.verify(one.access_token).sid for one in granted]
    assert sessions.revoke(sids[0], subject="bob") is False, "not his"
    assert sessions.revoke(sids[0], subject="ada") is True
    assert sessions.revoke(sids[0]) is False
    assert sessions.revoke("") is False
    assert {info.sid for info in sessions.list_sessions("ada")} == set(sids[1:4])
    assert sessions.revoke_others("ada", keep=sids[1]) == 2
    assert sessions.revoke_subject("ada") == 1
    assert sessions.revoke_subject("") == 0
    assert [info.subject for info in sessions.list_sessions()] == ["bob"]
    assert sessions.verify(granted[4].access_token)
    assert sum(isinstance(event, SessionRevoked) and event.subject == "ada" for event in events) == 4
    assert sum(isinstance(event, SessionCreated) for event in events) == 5


def test_a_session_list_tells_what_a_user_recognises(sessions: Sessions, clock: ServerClock) -> None:
    token = sessions.create("ada", label="laptop", caller=Caller("192.0.2.1", "browser")).refresh_token or ""
    clock.now += 10
    sessions.refresh(token)
    [info] = sessions.list_sessions("ada")
    assert (info.label, info.ip, info.user_agent, info.used_at - info.created_at) == (
        "laptop",
        "192.0.2.1",
        "browser",
        10,
    )
    assert json.loads(json.dumps(info.to_json(current=True)))["current"] is True


# ---- refusals that cost nothing --------------------------------------------------------------------------------------


def test_a_refused_claims_hook_spends_nothing(store: Any) -> None:
    closed: list[bool] = []

    def claims(info: Any) -> dict[str, object]:
        if closed:
            raise LoginRefused("the account is closed")
        return {"roles": ["admin"]}

    sessions = Sessions(store, claims=claims)
    granted = sessions.create("ada", coordinated=True)
    verified = sessions.verify(granted.access_token)
    assert (verified.extra, verified.subject) == ({"roles": ["admin"]}, "ada")
    closed.append(True)
    with pytest.raises(LoginRefused):
        sessions.refresh(granted.refresh_token or "")
    closed.clear()
    assert sessions.refresh(granted.refresh_token or "").refresh_seq == 1


@pytest.mark.parametrize(
    "wrong",
    [
        OSError("the directory is away"),
        {"born": object()},
        {"level": float("nan")},
        {"level": float("inf")},
        {1: "a", "1": "b"},
        {"sub": "mallory"},
        {"nbf": 4_000_000_000},
        ["roles"],
        None,
    ],
)
def test_claims_that_cannot_be_had_spend_nothing(store: Any, wrong: Any) -> None:
    answers: list[Any] = [{}]

    def claims(_info: Any) -> dict[str, object]:
        if isinstance(answers[-1], Exception):
            raise answers[-1]
        return answers[-1]

    sessions = Sessions(store, claims=claims)
    granted = sessions.create("ada", coordinated=True)
    answers.append(wrong)
    with pytest.raises((TryLater, ConfigurationError), match="claims"):
        sessions.refresh(granted.refresh_token or "")
    with pytest.raises((TryLater, ConfigurationError), match="claims"):
        sessions.create("bob")
    answers.append({"born": 1815})
    assert sessions.refresh(granted.refresh_token or "").refresh_seq == 1


@pytest.mark.parametrize("remembered", [True, False])
def test_a_session_that_ended_stays_ended_in_a_store_that_was_put_back(store: Any, remembered: bool) -> None:
    sessions = Sessions(store)
    granted = sessions.create("ada")
    if remembered:
        granted = sessions.refresh(granted.refresh_token or "")
    [before] = run_sync(store.sessions("ada"))
    assert sessions.logout(refresh_token=granted.refresh_token)
    put_back(store, before)
    assert refused(sessions, granted.refresh_token or "") == "revoked"
    assert refused(Sessions(store), granted.refresh_token or "") == "revoked", "it is ended there again"


def put_back(store: Any, row: SessionRow) -> None:
    """What a restored store says of a session."""
    if isinstance(store, MemorySessionStore):
        run_sync(store.insert(row))
        return
    with sqlite3.connect(store.encryption_key_file.removesuffix(".key")) as db:
        db.execute("UPDATE session SET revoked_at = NULL, revoked_why = NULL WHERE key = ?", (row.key,))
    db.close()


def test_another_client_and_too_much_scope_are_refused_and_spend_nothing(sessions: Sessions) -> None:
    granted = sessions.create("ada", client_id="web", scope="read write", coordinated=True)
    token = granted.refresh_token or ""
    assert refused(sessions, token, client_id="other") == refused(sessions, token) == "wrong_client"
    with pytest.raises(InvalidScope):
        sessions.refresh(token, client_id="web", scope="read admin")
    narrowed = sessions.refresh(token, client_id="web", scope="read")
    assert (narrowed.scope, narrowed.refresh_seq) == ("read", 1)
    assert sessions.refresh(narrowed.refresh_token or "", client_id="web").scope == "read write"


def test_a_token_of_another_server_is_refused(sessions: Sessions) -> None:
    other = Sessions(MemorySessionStore()).create("ada")
    assert refused(sessions, other.refresh_token) == "malformed"
    assert dead(sessions, other.access_token) == "malformed"


def test_a_genuine_token_without_a_row_is_unknown_and_no_theft(sessions: Sessions, events: list[ServerEvent]) -> None:
    token = sessions.create("ada").refresh_token or ""
    without_rows = MemorySessionStore()
    run_sync(without_rows.save_keys(run_sync(sessions.store.keys())))
    assert refused(Sessions(without_rows, on_event=events.append), token) == "unknown"
    assert not any(isinstance(event, ReuseDetected) for event in events)


# ---- access tokens ---------------------------------------------------------------------------------------------------


def forge(sessions: Sessions, header: dict[str, Any], claims: dict[str, Any], sign: Any = lambda message: b"") -> str:
    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    message = part(header) + b"." + part(claims)
    return (message + b"." + base64.urlsafe_b64encode(sign(message)).rstrip(b"=")).decode()


def test_the_attacks_of_rfc_8725_are_refused(sessions: Sessions) -> None:
    granted = sessions.create("ada")
    good = jwt.decode(granted.access_token, options={"verify_signature": False})
    key = sessions.keyring().signing[0]
    public = key.jwk.get_op_key("verify").public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = {"alg": "EdDSA", "typ": "at+jwt", "kid": key.kid}
    sign = key.jwk.get_op_key("sign").sign
    assert sessions.verify(forge(sessions, header, good, sign)), "the forge can sign"
    attacks = {
        "alg none": forge(sessions, header | {"alg": "none"}, good),
        "alg nOnE": forge(sessions, header | {"alg": "nOnE"}, good),
        "HMAC with the public key": forge(
            sessions, header | {"alg": "HS256"}, good, lambda message: hmac.digest(public, message, "sha256")
        ),
        "another alg": forge(sessions, header | {"alg": "ES256"}, good, sign),
        "an ID token": forge(sessions, header | {"typ": "JWT"}, good, sign),
        "no typ": forge(sessions, {"alg": "EdDSA", "kid": key.kid}, good, sign),
        "crit": forge(sessions, header | {"crit": ["b64"], "b64": False}, good, sign),
        "kid as a path": forge(sessions, header | {"kid": "../../dev/null"}, good, sign),
        "kid as a list": forge(sessions, header | {"kid": [key.kid]}, good, sign),
        "no kid": forge(sessions, {"alg": "EdDSA", "typ": "at+jwt"}, good, sign),
        "its own key": forge(sessions, header | {"kid": "own", "jwk": key.public()}, good, sign),
        "another issuer": forge(sessions, header, good | {"iss": "https://evil.example"}, sign),
        "another audience": forge(sessions, header, good | {"aud": "other"}, sign),
        "a list of audiences": forge(sessions, header, good | {"aud": ["unbroken", "other"]}, sign),
        "no exp": forge(sessions, header, {k: v for k, v in good.items() if k != "exp"}, sign),
        "exp as text": forge(sessions, header, good | {"exp": "9999999999"}, sign),
        "exp forever": forge(sessions, header, good | {"exp": True}, sign),
        "no sid": forge(sessions, header, {k: v for k, v in good.items() if k != "sid"}, sign),
        "a number for a subject": forge(sessions, header, good | {"sub": 7}, sign),
        "not an object": forge(sessions, header, ["a"], sign),  # type: ignore[arg-type]
        "a refresh token": granted.refresh_token or "",
        "four parts": granted.access_token + ".x",
    }
    for name, token in attacks.items():
        assert dead(sessions, token) == "malformed", name
    assert refused(sessions, granted.access_token) == "malformed", "an access token is no refresh token"


def test_a_thousand_mutated_access_tokens_are_refused(sessions: Sessions) -> None:
    token, chance = sessions.create("ada").access_token, random.Random(2)
    sessions.verify(token)
    for _ in range(1000):
        at, mutant = chance.randrange(len(token)), list(token)
        mutant[at] = chance.choice(string.printable.replace(token[at], ""))
        assert dead(sessions, "".join(mutant)) in ("malformed", "expired")
    for tail in ("=", " ", "\n", "A", ".", "\0"):
        assert dead(sessions, token + tail) == "malformed"
    last = [token[:-1] + other for other in string.ascii_letters + string.digits + "-_" if other != token[-1]]
    assert {dead(sessions, other) for other in last} == {"malformed"}


SHARED = Sessions(MemorySessionStore())


@given(st.text(max_size=300) | st.lists(st.text(alphabet=string.ascii_letters + "-_=", max_size=30)).map(".".join))
def test_no_text_causes_another_error(text: str) -> None:
    with pytest.raises(InvalidToken):
        SHARED.verify(text)


def test_our_tokens_verify_elsewhere_by_our_published_keys(sessions: Sessions) -> None:
    token = sessions.create("ada").access_token
    [key] = sessions.jwks()["keys"]  # type: ignore[misc]
    assert "d" not in key
    found = jwt.decode(token, jwt.PyJWK(key).key, algorithms=["EdDSA"], audience="unbroken", issuer=sessions.issuer)
    assert found["sub"] == "ada"
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"


@pytest.mark.parametrize("alg", ["ES256", "HS256"])
def test_other_algorithms_by_choice(store: Any, alg: str) -> None:
    from unbroken._concurrency import run_sync
    from unbroken.server.keys.keyring import new_mac_key, new_signing_key

    run_sync(store.save_keys([new_signing_key(alg, 0.0, 0.0), new_mac_key(1, 0.0, 0.0)]))
    sessions = Sessions(store)
    assert sessions.verify(sessions.create("ada").access_token).subject == "ada"
    assert bool(sessions.jwks()["keys"]) is (alg == "ES256"), "a shared secret is published nowhere"


# ---- other processes, and stores that forget -------------------------------------------------------------------------


def test_a_revocation_reaches_another_process_within_a_second(tmp_path: Path) -> None:
    here, there = (Sessions(SqliteSessionStore(tmp_path / "s.db")) for _ in range(2))
    granted = here.create("ada")
    assert there.verify(granted.access_token)
    here.logout(access_token=granted.access_token)
    assert dead(here, granted.access_token) == "revoked"
    time.sleep(1.0)
    assert dead(there, granted.access_token) == "revoked"


def test_a_revocation_is_known_after_a_restart(tmp_path: Path) -> None:
    before = Sessions(SqliteSessionStore(tmp_path / "s.db"))
    granted = before.create("ada")
    before.revoke_subject("ada")
    assert dead(Sessions(SqliteSessionStore(tmp_path / "s.db")), granted.access_token) == "revoked"


def test_the_set_of_revoked_sessions_is_bounded_by_one_access_lifetime(store: Any, clock: ServerClock) -> None:
    sessions = Sessions(store, clock=clock, policy=Policy(access_ttl=60))
    for _ in range(50):
        sessions.logout(access_token=sessions.create("ada").access_token)
        clock.now += 30
    assert len(sessions._freshness.revoked) <= 4


def test_a_restored_database_is_healed_unnoticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    sessions = Sessions(SqliteSessionStore(tmp_path / "s.db"), issuer="https://id.example.com")
    token = sessions.create("ada", coordinated=True).refresh_token or ""
    sessions.close()
    shutil.copy(tmp_path / "s.db", tmp_path / "older.db")
    shutil.copy(tmp_path / "s.db.key", tmp_path / "older.db.key")
    for number in range(5):
        token = sessions.refresh(token, idempotency_key=str(number)).refresh_token or ""
    restored = Sessions(SqliteSessionStore(tmp_path / "older.db"), issuer="https://id.example.com")
    token = restored.refresh(token, idempotency_key="after").refresh_token or ""
    assert restored.refresh(token, idempotency_key="and on").refresh_seq == 7
    assert not caplog.records


@pytest.mark.anyio
async def test_the_async_spellings_do_the_same(store: Any) -> None:
    sessions = Sessions(store)
    granted = await sessions.acreate("ada", label="phone")
    claims = await sessions.averify(granted.access_token)
    granted = await sessions.arefresh(granted.refresh_token or "", idempotency_key="one")
    assert [info.label for info in await sessions.alist_sessions("ada")] == ["phone"]
    other = await sessions.acreate("ada")
    assert await sessions.arevoke_others("ada", keep=claims.sid) == 1
    found = await sessions.ainspect_refresh(granted.refresh_token or "")
    assert found is not None
    assert found.is_usable
    assert await sessions.arevoke("no such session") is False
    assert await sessions.alogout(refresh_token=granted.refresh_token) is True
    assert await sessions.arevoke_subject("ada") == 0
    for token in (granted, other):
        with pytest.raises(Refused):
            await sessions.averify(token.access_token)


@pytest.mark.anyio
async def test_sixty_four_tasks_with_one_token_get_one_successor(store: Any) -> None:
    sessions = Sessions(store)
    token = (await sessions.acreate("ada")).refresh_token or ""
    successors = set()

    async def one() -> None:
        successors.add((await sessions.arefresh(token)).refresh_token)

    async with anyio.create_task_group() as group:
        for _ in range(64):
            group.start_soon(one)
    assert len(successors) == 1


@pytest.mark.anyio
async def test_an_empty_sid_or_subject_matches_no_session() -> None:
    sessions = Sessions(MemorySessionStore())
    sid = sessions.verify(sessions.create("ada").access_token).sid
    sessions.create("bob")
    assert sessions.revoke("") is await sessions.arevoke("") is False
    assert sessions.revoke(sid, subject="") is await sessions.arevoke(sid, subject="") is False
    assert sessions.revoke_subject("") == await sessions.arevoke_subject("") == 0
    for subject, keep in (("", ""), ("", sid), ("ada", "")):
        assert sessions.revoke_others(subject, keep=keep) == await sessions.arevoke_others(subject, keep=keep) == 0
    assert len(sessions.list_sessions()) == 2
    assert await sessions.arevoke(sid, subject="ada") is True


class FailingStore(MemorySessionStore):
    fails, failed = True, 0

    async def record_first_use(self, sid: str, generation: int, branch: int) -> None:
        if self.fails:
            self.failed += 1
            raise StoreUnavailable("gone")
        await super().record_first_use(sid, generation, branch)


def test_a_good_token_is_good_though_its_first_use_could_not_be_noted() -> None:
    store = FailingStore()
    sessions = Sessions(store, confirm_first_use=True)
    token = sessions.create("ada").access_token
    assert sessions.verify(token).subject == "ada"
    assert store.failed == 1
    store.fails = False
    sessions.verify(token)
    assert [row.first_used_branch for row in run_sync(store.sessions("ada"))] == [0], "the next use has noted it"
