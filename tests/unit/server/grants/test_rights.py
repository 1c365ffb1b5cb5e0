"""``scopes_of`` and the claims hook: plain and async, in threads and loops, beside a database that is locked.

Modules: server/application.py, server/grants/current_rights.py.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from unbroken.errors import ConfigurationError, InvalidToken, TryLater
from unbroken.server import MemorySessionStore, SessionInfo, Sessions, SqliteSessionStore


async def asked_later(found: Any) -> Any:
    await asyncio.sleep(0)
    return found


def test_async_functions_are_awaited_and_plain_ones_do_not_stop_the_loop() -> None:
    threads: list[int] = []

    def plain(_: Any) -> list[str]:
        threads.append(threading.get_ident())
        return ["read"]

    async def main() -> None:
        for scopes_of in (plain, lambda subject: asked_later(["read"])):
            sessions = Sessions(MemorySessionStore(), scopes_of=scopes_of, claims=lambda info: asked_later({"a": 1}))
            tokens = await sessions.acreate("ada")
            tokens = await sessions.arefresh(tokens.refresh_token or "")
            claims = await sessions.averify(tokens.access_token)
            assert (claims.scope, claims.extra) == ("read", {"a": 1})

    asyncio.run(main())
    assert len(threads) == 2
    assert threading.get_ident() not in threads


def test_an_async_function_cannot_be_called_without_a_loop() -> None:
    for hook in ({"scopes_of": lambda subject: asked_later([])}, {"claims": lambda info: asked_later({})}):
        with pytest.raises(ConfigurationError, match="async function cannot be called here"):
            Sessions(MemorySessionStore(), **hook).create("ada")


def test_an_async_function_is_asked_also_while_another_process_locks_the_database(tmp_path: Path) -> None:
    sessions = Sessions(SqliteSessionStore(tmp_path / "s.db"), scopes_of=lambda subject: asked_later(["read"]),
                        claims=lambda info: asked_later({"a": 1}))  # fmt: skip
    locked, free = threading.Event(), threading.Event()

    def hold() -> None:
        with sqlite3.connect(tmp_path / "s.db", isolation_level=None) as db:
            db.execute("BEGIN IMMEDIATE")
            locked.set()
            free.wait(10)
            db.execute("ROLLBACK")

    async def main() -> None:
        tokens = await sessions.acreate("ada")
        holder = threading.Thread(target=hold)
        holder.start()
        await asyncio.to_thread(locked.wait, 10)
        asyncio.get_running_loop().call_later(0.3, free.set)
        tokens = await sessions.arefresh(tokens.refresh_token or "")
        assert (tokens.scope, tokens.refresh_seq) == ("read", 1)
        holder.join(10)

    asyncio.run(main())
    sessions.close()


@pytest.mark.parametrize("wrong", ["read", None, 1, ["two words"], ["a", 1], ['a"b'], ["naïve"]])
def test_what_is_no_list_of_words_is_a_mistake_that_spends_nothing(wrong: Any) -> None:
    found: list[Any] = [["read"]]
    sessions = Sessions(MemorySessionStore(), scopes_of=lambda _: found[0])
    tokens = sessions.create("ada")
    found[0] = wrong
    with pytest.raises(ConfigurationError, match="scopes_of must return"):
        sessions.refresh(tokens.refresh_token or "")
    found[0] = {"write", "read"}
    assert sessions.refresh(tokens.refresh_token or "").scope == "read write", "the words of a set are sorted"


@pytest.mark.parametrize("hook", ["scopes_of", "claims"])
def test_what_a_function_raises_is_for_later_and_says_nothing_of_the_session(hook: str) -> None:
    fails = [True]

    def function(_: Any) -> Any:
        if fails[0]:
            raise ConnectionError("the directory at 10.0.0.1 does not respond")
        return [] if hook == "scopes_of" else {}

    sessions = Sessions(MemorySessionStore(), **{hook: function})
    with pytest.raises(TryLater):
        sessions.create("ada")
    assert sessions.list_sessions() == []
    fails[0] = False
    tokens = sessions.create("ada")
    fails[0] = True
    with pytest.raises(TryLater) as later:
        sessions.refresh(tokens.refresh_token or "")
    assert "10.0.0.1" not in str(later.value)
    fails[0] = False
    assert sessions.refresh(tokens.refresh_token or "").refresh_seq == 1


# ---- what a token would say now --------------------------------------------------------------------------------------


def test_claims_are_looked_up_as_they_are_now() -> None:
    scopes, role = ["read", "write"], ["admin"]
    sessions = Sessions(MemorySessionStore(), scopes_of=lambda _: scopes, claims=lambda _: {"role": role[0]})
    full = sessions.verify(sessions.create("ada").access_token)
    part = sessions.verify(sessions.create("ada", scope="read").access_token)
    scopes[:], role[0] = ["read", "pay"], "clerk"
    assert (sessions.look_up(full).scope, sessions.look_up(part).scope) == ("read pay", "read")
    assert sessions.look_up(full).extra == {"role": "clerk"}
    assert (full.scope, full.extra) == ("read write", {"role": "admin"}), "what was verified stays as it is"
    assert asyncio.run(sessions.alook_up(full)).scope == "read pay"
    with pytest.raises(TypeError):
        sessions.look_up(full).extra["role"] = "admin"  # type: ignore[index]  # it is a mapping


def test_without_functions_the_claims_are_those_of_the_token_while_the_session_lives() -> None:
    sessions = Sessions(MemorySessionStore())
    claims = sessions.verify(sessions.create("ada", scope="read").access_token)
    assert sessions.look_up(claims) == claims
    sessions.revoke(claims.sid)
    with pytest.raises(InvalidToken) as over:
        sessions.look_up(claims)
    assert over.value.reason == "revoked"


def test_the_hook_gets_the_session(tmp_path: Path) -> None:
    seen: list[SessionInfo] = []

    def claims(info: SessionInfo) -> dict[str, object]:
        seen.append(info)
        return {}

    sessions = Sessions(MemorySessionStore(), claims=claims)
    found = sessions.verify(sessions.create("ada", label="laptop").access_token)
    sessions.look_up(found)
    assert [(info.subject, info.label) for info in seen] == [("ada", "laptop")] * 2
