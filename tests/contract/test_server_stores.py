"""What every store of the server must do. A further store joins by its name in ``STORES``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unbroken._once import run_once
from unbroken.server import MemoryStore, SqliteStore
from unbroken.server.keys import new_mac_key
from unbroken.server.rotation import Policy, Presented, Row, Verdict, present
from unbroken.server.stores import Account

STORES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(folder / "store.db"),
}
NOW = 100.0


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return STORES[request.param](tmp_path)


def row(sid: str = "sid", **fields: Any) -> Row:
    return replace(Row(sid.encode(), sid, "ada", 1.0, 1.0, 1000.0, 5000.0), **fields)


small = st.integers(0, 2)
rows = st.builds(
    row,
    g=st.integers(0, 3),
    b=small,
    at1=st.none() | st.just(95.0),
    b1=st.none() | small,
    attempt=st.none() | st.just(b"a"),
    seen=st.none() | small,
    coordinated=st.booleans(),
    revoked_at=st.none() | st.just(50.0),
    idle_expires_at=st.sampled_from([NOW, NOW + 1, 900.0]),
    expires_at=st.sampled_from([NOW, NOW + 1, 1200.0]),
)
tokens = st.builds(Presented, st.integers(0, 4), small, st.none() | st.just(b"z"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=rows, token=tokens, number=st.integers(0, 2**60))
def test_rotate_is_r1_and_nothing_else(store: Any, before: Row, token: Presented, number: int) -> None:
    before = replace(before, key=number.to_bytes(8, "big"), sid=str(number))
    run_once(store.insert(before)) if run_once(store.read(before.key)) is None else None
    before = run_once(store.read(before.key))
    rotated = run_once(store.rotate(before.key, token, NOW, 300.0))
    after, verdict = present(before, token, NOW, Policy(refresh_ttl=300.0))
    assert rotated is (verdict is Verdict.ROTATED)
    assert run_once(store.read(before.key)) == (after if rotated else before)


def test_a_row_comes_back_as_it_went_in(store: Any) -> None:
    full = row(g=2**40, b=3, at1=1.5, b1=0, attempt=b"\0", seen=1, coordinated=True, label="läptop", client_id="web")
    run_once(store.insert(full))
    assert run_once(store.read(full.key)) == full
    assert run_once(store.read(b"other")) is None


def test_swap_replaces_only_what_was_read(store: Any) -> None:
    before = row()
    run_once(store.insert(before))
    branched = replace(before, b=1, attempt=b"x")
    assert run_once(store.swap(before, branched, 0.0)) is True
    assert run_once(store.swap(before, replace(before, b=2), 0.0)) is False
    assert run_once(store.read(before.key)) == branched


def test_a_swap_never_revives_a_revoked_session(store: Any) -> None:
    before = row()
    run_once(store.insert(before))
    run_once(store.revoke(NOW, "revoked", NOW + 9, sid="sid"))
    assert run_once(store.swap(before, replace(before, b=1), 0.0)) is False
    assert run_once(store.rotate(before.key, Presented(0, 0), NOW, 300.0)) is False


def test_revocations_are_told_once_to_each_cursor(store: Any) -> None:
    for sid in ("a", "b", "c"):
        run_once(store.insert(row(sid)))
    cursor, news = run_once(store.revocations(0))
    assert news == []
    assert run_once(store.revoke(NOW, "logged_out", NOW + 9, sid="a")) == ["a"]
    assert run_once(store.swap(row("b"), replace(row("b"), revoked_at=NOW, revoked_why="reuse"), NOW + 9)) is True
    cursor, news = run_once(store.revocations(cursor))
    assert sorted(news) == [("a", NOW + 9), ("b", NOW + 9)]
    assert run_once(store.revocations(cursor)) == (cursor, [])
    assert run_once(store.revoke(NOW, "revoked", NOW + 9, subject="ada", keep="c")) == []
    assert run_once(store.revoke(NOW, "revoked", NOW + 9, subject="ada")) == ["c"]


def test_only_living_sessions_are_ended(store: Any) -> None:
    for sid, fields in {"alive": {}, "idle": {"idle_expires_at": NOW}, "old": {"expires_at": NOW}}.items():
        run_once(store.insert(row(sid, **fields)))
    assert run_once(store.revoke(NOW, "revoked", NOW + 9, subject="ada")) == ["alive"]
    assert run_once(store.revoke(NOW, "revoked", NOW + 9, sid="idle")) == []
    assert run_once(store.revocations(0))[1] == [("alive", NOW + 9)]


def test_what_is_given_to_revoke_is_what_must_fit(store: Any) -> None:
    for sid, subject in (("a", "ada"), ("b", "ada"), ("c", "bob")):
        run_once(store.insert(row(sid, subject=subject)))
    end = functools.partial(store.revoke, NOW, "revoked", NOW + 9)
    assert run_once(end(sid="a", subject="bob")) == []
    assert run_once(end(sid="a", keep="a")) == []
    assert run_once(end(sid="")) == run_once(end(subject="")) == []
    assert run_once(end(sid="a", subject="ada")) == ["a"]
    assert sorted(run_once(end())) == ["b", "c"]


def test_revocations_that_nobody_needs_are_forgotten(store: Any) -> None:
    for number in range(50):
        run_once(store.insert(row(str(number))))
        run_once(store.revoke(NOW + number, "revoked", NOW + number + 5, sid=str(number)))
    cursor, news = run_once(store.revocations(0))
    assert len(news) <= 7
    run_once(store.insert(row("new")))
    run_once(store.revoke(NOW, "revoked", NOW + 999, sid="new"))
    assert run_once(store.revocations(cursor))[1] == [("new", NOW + 999)], "the cursor counts on"


def test_a_session_that_was_cleared_away_is_found_by_nothing(store: Any) -> None:
    run_once(store.insert(row("old", expires_at=50.0)))
    run_once(store.insert(row("new", created_at=NOW)))
    assert run_once(store.sessions("ada")) == [row("new", created_at=NOW)]
    assert run_once(store.sessions(sid="old")) == []
    assert run_once(store.revoke(1.0, "revoked", 9.0, sid="old")) == []
    run_once(store.confirm("old", 0, 0))
    assert run_once(store.read(b"old")) is None


def test_sessions_are_found_by_subject_and_by_sid(store: Any) -> None:
    run_once(store.insert(row("a", used_at=5.0)))
    run_once(store.insert(row("b", used_at=9.0)))
    run_once(store.insert(row("c", subject="bob")))
    assert [found.sid for found in run_once(store.sessions("ada"))] == ["b", "a"]
    assert [found.sid for found in run_once(store.sessions(sid="c"))] == ["c"]
    assert len(run_once(store.sessions())) == 3


def test_sessions_that_are_long_over_are_cleared_away_at_a_login(store: Any) -> None:
    for number in range(150):
        run_once(store.insert(row(str(number), expires_at=50.0, created_at=1.0)))
    run_once(store.insert(row("new", created_at=NOW)))
    assert len(run_once(store.sessions())) == 51, "at most a hundred at a time"
    run_once(store.insert(row("newer", created_at=NOW)))
    assert {found.sid for found in run_once(store.sessions())} == {"new", "newer"}


def test_confirming_sets_seen_once(store: Any) -> None:
    run_once(store.insert(row(g=3)))
    run_once(store.confirm("sid", 2, 0))
    assert run_once(store.read(b"sid")).seen is None
    run_once(store.confirm("sid", 3, 1))
    run_once(store.confirm("sid", 3, 0))
    assert run_once(store.read(b"sid")).seen == 1


def test_the_first_keys_are_made_once(store: Any) -> None:
    one, two = new_mac_key(1, 0.0, 0.0), new_mac_key(2, 0.0, 0.0)
    run_once(store.save_keys([one], first=True))
    run_once(store.save_keys([two], first=True))
    assert run_once(store.keys()) == [one]
    run_once(store.save_keys([replace(one, verifies_until=5.0), two]))
    assert {key.kid: key.verifies_until for key in run_once(store.keys())} == {"1": 5.0, "2": None}
    run_once(store.save_keys([replace(one, token_ttl=60.0)]))
    run_once(store.save_keys([replace(one, verifies_until=9.0, token_ttl=30.0)]))
    [ended, _] = run_once(store.keys())
    assert (ended.verifies_until, ended.token_ttl) == (5.0, 60.0), "a key that ended does not come back"


def test_accounts(store: Any) -> None:
    account = Account("ada", "Ada", "hash", 1.0)
    assert run_once(store.add_account(account)) is True
    assert run_once(store.add_account(replace(account, shown="ADA"))) is False
    assert run_once(store.account("ada")) == account
    assert run_once(store.change_account("ada", "new")) is True
    assert run_once(store.accounts()) == [replace(account, password_hash="new")]
    assert run_once(store.change_account("ada", "late", expected="hash")) is False, "it has another by now"
    assert run_once(store.change_account("ada", None, expected="hash")) is False
    assert run_once(store.change_account("ada", "newer", expected="new")) is True
    assert run_once(store.accounts()) == [replace(account, password_hash="newer")]
    assert run_once(store.change_account("ada", None, expected="newer")) is True
    assert run_once(store.change_account("ada", None)) is False
    assert run_once(store.change_account("ada", "x", expected="newer")) is False
    assert run_once(store.account("ada")) is None
