"""What callers, threads and stores that fail must not be able to do to sessions."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from unbroken._bounded_cache import BoundedCache
from unbroken.errors import ConfigurationError, StoreUnavailable
from unbroken.server import Claims, MemorySessionStore, SessionInfo, Sessions
from unbroken.server.keys.access_token import frozen


class Hands:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hands() -> Hands:
    return Hands()


# ---- empty names -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_empty_name_names_nobody_in_either_spelling() -> None:
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


# ---- tokens that would be refused ------------------------------------------------------------------------------------


def test_a_token_that_is_too_long_is_not_made_and_nothing_is_spent() -> None:
    many: list[str] = []
    sessions = Sessions(MemorySessionStore(), claims=lambda info: {"groups": many})
    granted = sessions.create("ada", coordinated=True)
    many.extend(f"group {number}" for number in range(900))
    with pytest.raises(ConfigurationError, match="8192"):
        sessions.create("bob")
    with pytest.raises(ConfigurationError, match="8192"):
        sessions.refresh(granted.refresh_token or "")
    many.clear()
    assert [info.subject for info in sessions.list_sessions()] == ["ada"], "nothing was written"
    assert sessions.refresh(granted.refresh_token or "").refresh_seq == 1


def test_a_subject_that_fits_into_no_token_is_refused_at_login() -> None:
    sessions = Sessions(MemorySessionStore())
    with pytest.raises(ConfigurationError, match="8192"):
        sessions.create("a" * 6000)
    assert sessions.list_sessions() == []


# ---- the claims hook -------------------------------------------------------------------------------------------------


def test_the_claims_hook_sees_the_session_as_the_refresh_will_leave_it(hands: Hands) -> None:
    seen: list[SessionInfo] = []

    def claims(info: SessionInfo) -> dict[str, object]:
        seen.append(info)
        return {}

    sessions = Sessions(MemorySessionStore(), claims=claims, clock=hands)
    token = sessions.create("ada").refresh_token or ""
    for _ in range(20):
        hands.now += 86400
        token = sessions.refresh(token).refresh_token or ""
        [listed] = sessions.list_sessions("ada")
        assert seen[-1] == listed
    assert (seen[-1].used_at, seen[-1].idle_expires_at) == (hands.now, hands.now + 7 * 86400)


# ---- claims that are shared ------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Any], object]] = {
    "a further claim": lambda extra: extra.__setitem__("admin", True),
    "a claim less": lambda extra: extra.pop("roles"),
    "an update": lambda extra: extra.update(admin=True),
    "another role": lambda extra: extra["roles"].append("admin"),
    "more roles": lambda extra: extra["roles"].extend(["admin"]),
    "another first role": lambda extra: extra["roles"].__setitem__(0, "admin"),
    "a nested object": lambda extra: extra["deep"][0].__setitem__("a", 2),
    "a union in place": lambda extra: extra.__ior__({"admin": True}),
}


@pytest.fixture
def claims() -> Claims:
    sessions = Sessions(MemorySessionStore(), claims=lambda info: {"roles": ["user"], "deep": [{"a": 1}]})
    return sessions.verify(sessions.create("ada").access_token)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_claims_of_a_token_cannot_be_changed(claims: Claims, change: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError):
        change(claims.extra)
    assert claims.extra == {"roles": ["user"], "deep": [{"a": 1}]}


def test_no_method_of_a_dict_or_a_list_changes_a_frozen_one() -> None:
    calls: dict[str, tuple[Any, ...]] = {"setdefault": ("b", 1), "insert": (0, 1), "pop": (), "__delitem__": (0,)}
    for kind, plain in ((dict, {"a": 1}), (list, [2, 1])):
        changing = {
            "clear",
            "pop",
            "popitem",
            "setdefault",
            "update",
            "append",
            "extend",
            "insert",
            "remove",
            "reverse",
        }
        for name in (changing | {"sort", "__setitem__", "__delitem__", "__iadd__", "__imul__", "__ior__"}) & {
            *dir(kind)
        }:
            value = frozen(plain)
            with pytest.raises(TypeError, match="shared"):
                getattr(value, name)(*calls.get(name, ()))
            assert value == plain


def test_frozen_claims_are_read_printed_and_copied_like_any_others(claims: Claims) -> None:
    plain = {"roles": ["user"], "deep": [{"a": 1}]}
    assert json.dumps(claims.extra) == json.dumps(plain)
    assert repr(claims.extra) == repr(plain)
    for copied in (pickle.loads(pickle.dumps(claims)).extra, copy.deepcopy(claims.extra)):
        assert copied == plain
        copied["roles"].append("more")  # a copy belongs to whoever made it
    assert copy.copy(claims.extra) | {"a": 1} == {**plain, "a": 1}
    assert pickle.loads(pickle.dumps(claims)) == claims


# ---- retired keys ----------------------------------------------------------------------------------------------------


def test_a_retired_key_logs_nobody_out(hands: Hands) -> None:
    sessions = Sessions(MemorySessionStore(), clock=hands)
    granted = sessions.create("ada")
    sessions.verify(granted.access_token)
    sessions.retire_key(sessions.keyring().signer(hands.now).kid)
    assert sessions.logout(access_token=granted.access_token) is False
    assert len(sessions.list_sessions()) == 1


# ---- the first use ---------------------------------------------------------------------------------------------------


class Failing(MemorySessionStore):
    fails = True

    async def confirm(self, sid: str, g: int, b: int) -> None:
        if self.fails:
            raise StoreUnavailable("gone")
        await super().record_first_use(sid, g, b)


def test_a_good_token_is_good_though_its_first_use_could_not_be_noted() -> None:
    store = Failing()
    sessions = Sessions(store, confirm_first_use=True)
    token = sessions.create("ada").access_token
    assert sessions.verify(token).subject == "ada"
    store.fails = False
    sessions.verify(token)
    assert [row.first_used_branch for row in store._rows.values()] == [0], "the next use has noted it"


# ---- threads ---------------------------------------------------------------------------------------------------------


def test_what_is_remembered_is_bounded_and_the_newest() -> None:
    recent: BoundedCache[int, str] = BoundedCache(3)
    for number in range(10):
        recent.put(number, str(number))
    assert recent == {7: "7", 8: "8", 9: "9"}
    recent.discard(8)
    recent.discard(8)
    assert list(recent) == [7, 9]


def test_threads_that_remember_at_once_do_not_disturb_each_other() -> None:
    class Interrupted(BoundedCache[int, int]):
        """Stands for a thread that is interrupted while it looks for the oldest entry."""

        def __iter__(self) -> Iterator[int]:
            entries = super().__iter__()
            if not inside.is_set():
                inside.set()
                time.sleep(0.2)
            yield next(entries)

    inside, recent, errors = threading.Event(), Interrupted(1), list[BaseException]()
    recent.put(0, 0)

    def first() -> None:
        try:
            recent.put(1, 1)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    recent.put(2, 2)
    thread.join()
    assert errors == []
    assert recent == {2: 2}


# ---- room ------------------------------------------------------------------------------------------------------------


def test_sessions_that_are_over_take_no_room_in_memory(hands: Hands) -> None:
    store = MemorySessionStore()
    sessions = Sessions(store, clock=hands)
    for number in range(300):
        hands.now += 86400
        sessions.logout(access_token=sessions.create(f"user {number}").access_token)
    held = {name: len(value) for name, value in vars(store).items() if isinstance(value, (dict, list, deque))}
    assert held["_revoked"] <= 2, "a revocation is needed for as long as an access token lives"
    assert max(held.values()) <= 92, "a row for as long as a session may"
    assert len(sessions._freshness.revoked) <= 2
