"""The shape of ``Sessions``: two spellings, values that check themselves, the store, the issuer, closing.

Modules: server/core/session_info.py, server/listeners.py, server/session_admin.py.
"""

from __future__ import annotations

import inspect
import logging
import typing
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import unbroken.server
from unbroken._concurrency import run_sync
from unbroken.errors import ConfigurationError, LoginRefused
from unbroken.server import (
    Caller,
    MemorySessionStore,
    NewSession,
    Policy,
    Revocation,
    ServerEvent,
    Sessions,
)
from unbroken.server import (
    sessions as sessions_module,
)

OWN_CLASSES = [cls for cls in reversed(Sessions.__mro__) if cls.__module__.startswith("unbroken.server")]
METHODS = {name: value for cls in OWN_CLASSES for name, value in vars(cls).items()}
BLOCKING = sorted(
    name
    for name, value in METHODS.items()
    if inspect.isfunction(value) and not name.startswith("_") and hasattr(Sessions, f"a{name}")
)
WITHOUT_IO = {"add_listener", "notify", "verify_cached"}
FOR_ENDPOINTS = {
    "acreate_unless",
    "acached_keyring",
    "alook_up_within",
    "arefresh_within",
}  # coroutines, which run in both styles


# ---- two spellings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BLOCKING)
def test_both_spellings_take_and_return_the_same(name: str) -> None:
    blocking, awaiting = getattr(Sessions, name), getattr(Sessions, f"a{name}")
    assert inspect.signature(blocking) == inspect.signature(awaiting)
    assert inspect.iscoroutinefunction(awaiting)
    assert not inspect.iscoroutinefunction(blocking)


def test_every_operation_has_both_spellings() -> None:
    public = {name for name, value in METHODS.items() if inspect.isfunction(value) and not name.startswith("_")}
    assert public == {*BLOCKING, *(f"a{name}" for name in BLOCKING), *WITHOUT_IO, *FOR_ENDPOINTS}


def test_every_type_that_the_signatures_show_can_be_imported_from_one_place() -> None:
    shown: set[str] = set()
    for value in (Sessions, *(getattr(Sessions, name) for name in BLOCKING), Sessions.acreate_unless):
        hints = typing.get_type_hints(value.__init__ if isinstance(value, type) else value)
        for hint in hints.values():
            shown |= {kind.__name__ for kind in _kinds_in(hint) if kind.__module__.startswith("unbroken.server")}
    assert shown <= set(unbroken.server.__all__)
    assert {"SessionStore", "Policy", "Caller", "KeyRecord", "RefreshInspection", "RevocationPage"} <= shown


def _kinds_in(hint: Any) -> list[type]:
    if parts := typing.get_args(hint):
        flat = [one for part in parts for one in (part if isinstance(part, list) else [part])]
        return [kind for part in flat for kind in _kinds_in(part)]
    return [hint] if isinstance(hint, type) else []


# ---- the store -------------------------------------------------------------------------------------------------------


def test_a_url_is_enough(tmp_path: Path) -> None:
    with Sessions(f"sqlite:///{tmp_path}/app.db") as sessions:
        assert repr(sessions.store) == f"<SqliteSessionStore {tmp_path}/app.db>"
        assert (tmp_path / "app.db.key").exists(), "the keys in it are encrypted"
        assert sessions.verify(sessions.create("ada").access_token).subject == "ada"


@pytest.mark.parametrize(
    "wrong", [None, 5, object(), MemorySessionStore, Path("app.db"), b"sqlite:///a.db", "app.db", ""]
)
def test_what_is_no_store_is_refused_in_one_line(wrong: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Sessions(wrong)
    assert "\n" not in str(caught.value)


def test_stores_with_a_driver_of_their_own_are_imported_when_they_are_asked_for() -> None:
    from unbroken.server.stores.postgres import PostgresSessionStore
    from unbroken.server.stores.redis import RedisSessionStore

    assert unbroken.server.PostgresSessionStore is PostgresSessionStore
    assert unbroken.server.RedisSessionStore is RedisSessionStore
    with pytest.raises(AttributeError, match="NoSuchStore"):
        unbroken.server.NoSuchStore  # noqa: B018


class Closing(MemorySessionStore):
    closed: tuple[str, ...] = ()

    def close(self) -> None:
        self.closed += ("close",)

    async def aclose(self) -> None:
        self.closed += ("aclose",)


@pytest.mark.anyio
async def test_a_context_manager_closes_the_store_in_its_own_style() -> None:
    blocking, awaiting = Closing(), Closing()
    with Sessions(blocking):
        assert blocking.closed == ()
    async with Sessions(awaiting):
        assert awaiting.closed == ()
    assert (blocking.closed, awaiting.closed) == (("close",), ("aclose",))


# ---- the issuer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", ["", "example.com", "ftp://example.com", "https://", "https://a.example/?x=1", "https://a.example/#x", 5]
)
def test_an_issuer_that_is_no_url_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="issuer"):
        Sessions(MemorySessionStore(), issuer=wrong)


def test_a_forgotten_issuer_is_logged_once_and_only_when_it_gets_into_a_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sessions_module._warn_of_development_issuer.cache_clear()
    with caplog.at_level(logging.WARNING, "unbroken"):
        Sessions(MemorySessionStore(), issuer="https://id.example.com").create("ada")
        forgotten = Sessions(MemorySessionStore())
        assert forgotten.list_sessions() == []
        assert caplog.messages == []
        claims = forgotten.verify(forgotten.create("ada").access_token)
        Sessions(MemorySessionStore()).create("bob")
    assert claims.issuer == forgotten.issuer == sessions_module.DEVELOPMENT_ISSUER
    assert len([message for message in caplog.messages if "no issuer is set" in message]) == 1


# ---- the policy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["access_ttl", "refresh_ttl", "max_age", "grace"])
@pytest.mark.parametrize("wrong", [-1, -0.001, float("nan"), float("inf"), "60", None, True, timedelta(seconds=-1)])
def test_a_policy_refuses_a_wrong_value_and_names_its_field(field: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=field):
        Policy(**{field: wrong})


@pytest.mark.parametrize("field", ["access_ttl", "refresh_ttl", "max_age"])
def test_only_the_grace_may_be_zero(field: str) -> None:
    with pytest.raises(ConfigurationError, match=field):
        Policy(**{field: 0})
    assert Policy(grace=0).grace == 0.0


def test_a_policy_takes_timedeltas() -> None:
    policy = Policy(
        access_ttl=timedelta(minutes=5), refresh_ttl=timedelta(days=1), max_age=86400 * 30, grace=timedelta(0)
    )
    assert policy == Policy(300, 86400.0, 86400 * 30.0, 0)
    assert Sessions(MemorySessionStore(), policy=policy).create("ada").expires_in == 300.0


def test_a_policy_refuses_what_contradicts_itself() -> None:
    with pytest.raises(ConfigurationError, match=r"access_ttl .* must not exceed max_age"):
        Policy(max_age=60)
    with pytest.raises(ConfigurationError, match=r"grace .* must not exceed refresh_ttl"):
        Policy(refresh_ttl=5)


# ---- values ----------------------------------------------------------------------------------------------------------


def test_a_caller_is_kept_with_the_session_and_told_with_its_events() -> None:
    events: list[ServerEvent] = []
    sessions = Sessions(MemorySessionStore(), on_event=events.append, policy=Policy(grace=0))
    tokens = sessions.create("ada", caller=Caller("192.0.2.1", "curl/8"))
    [info] = sessions.list_sessions("ada")
    assert (info.ip, info.user_agent) == ("192.0.2.1", "curl/8")
    newer = sessions.refresh(tokens.refresh_token or "", idempotency_key="one")
    sessions.refresh(newer.refresh_token or "", idempotency_key="two")
    with pytest.raises(Exception, match="used twice"):
        sessions.refresh(tokens.refresh_token or "", caller=Caller("198.51.100.7", "evil/1"))
    told = {event.kind: event.to_json() for event in events}
    for kind in ("session.reuse_detected", "session.refresh_refused"):
        assert (told[kind]["ip"], told[kind]["user_agent"]) == ("198.51.100.7", "evil/1")


def test_a_refresh_token_is_inspected_without_being_used() -> None:
    sessions = Sessions(MemorySessionStore(), policy=Policy(grace=0))
    tokens = sessions.create("ada")
    found = sessions.inspect_refresh(tokens.refresh_token or "")
    assert found is not None
    assert (found.session.subject, found.is_usable) == ("ada", True)
    sessions.refresh(tokens.refresh_token or "")
    used = sessions.inspect_refresh(tokens.refresh_token or "")
    assert used is not None
    assert not used.is_usable
    assert sessions.inspect_refresh("rt_forged") is None


def test_revocations_are_pages_to_follow() -> None:
    sessions = Sessions(MemorySessionStore())
    claims = sessions.verify(sessions.create("ada").access_token)
    page = sessions.revocations()
    assert page.revoked == []
    sessions.revoke(claims.sid)
    page = sessions.revocations(page.cursor)
    [revocation] = page.revoked
    assert isinstance(revocation, Revocation)
    assert (revocation.sid, revocation.until > claims.expires_at) == (claims.sid, True)
    assert sessions.revocations(page.cursor).revoked == []


@pytest.mark.parametrize("is_voided", [False, True])
def test_a_login_that_was_voided_leaves_no_session_and_no_event(is_voided: bool) -> None:
    events: list[ServerEvent] = []
    sessions = Sessions(MemorySessionStore(), on_event=events.append)
    stored: list[int] = []

    async def voided() -> bool:
        stored.append(len(sessions.list_sessions("ada")))
        return is_voided

    def create() -> Any:
        return run_sync(sessions.acreate_unless("ada", NewSession(label="till 3"), Caller(), voided=voided))

    if is_voided:
        with pytest.raises(LoginRefused):
            create()
    else:
        create()
    assert stored == [1], "asked once the session is stored"
    assert ([info.label for info in sessions.list_sessions()], len(events)) == (
        ([], 0) if is_voided else (["till 3"], 1)
    )


def test_a_listener_can_be_added_later_and_may_fail() -> None:
    told: list[str] = []
    sessions = Sessions(MemorySessionStore())

    def fails(_: ServerEvent) -> None:
        raise RuntimeError

    listeners: list[Callable[[ServerEvent], object]] = [fails, lambda event: told.append(event.kind)]
    for listener in listeners:
        sessions.add_listener(listener)
    sessions.create("ada")
    assert told == ["login.accepted"]


def test_a_limit_of_sessions_is_a_whole_number_above_zero_or_none() -> None:
    assert Policy().max_sessions_per_subject == 1000
    assert Policy(max_sessions_per_subject=None).max_sessions_per_subject is None
    for wrong in (0, -1, True, 1.5, "10"):
        with pytest.raises(ConfigurationError, match="max_sessions_per_subject"):
            Policy(max_sessions_per_subject=wrong)  # type: ignore[arg-type]
