"""What every server store must do, for blocking code, in asyncio and in trio.

1. The types come from the registry. The store of the page "A server store" is one of them, and so is the one whose URL
   ``UNBROKEN_TEST_STORE`` contains, with ``{unique}`` where a new store needs another name.
2. Each test gets a store that is empty.

Modules: server/stores/markers.py.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.docs.pages import load_page_module
from tests.support.services import Service, new_store, postgres_server, redis_server
from tests.support.waiting import eventually
from unbroken._concurrency import run_sync
from unbroken.errors import InvalidGrant, InvalidToken, StoreUnavailable
from unbroken.server import Sessions, open_store
from unbroken.server.core.rotation import Policy, PresentedToken, SessionBinding, SessionRow, Verdict, present
from unbroken.server.keys.keyring import new_mac_key
from unbroken.server.stores import Account, store_type, store_types

load_page_module("extend/server-store.md", "server_store_page")
TEST_STORE = os.environ.get("UNBROKEN_TEST_STORE", "")
MODES = ("blocking", "asyncio", "trio")
TYPES = {one.name: one for one in (*store_types(), *([store_type(TEST_STORE)] if TEST_STORE else []))}
STORES = [(kind, mode) for kind in TYPES for mode in MODES]
SHARED = [(kind, mode) for kind, mode in STORES if TYPES[kind].shared]
SERVERS: dict[str, Callable[[], AbstractContextManager[Service]]] = {"postgres": postgres_server, "redis": redis_server}
NOW = 100.0
BINDINGS = [SessionBinding("web", "https://id.example.com", "shop")]  # of a row, then others
BINDINGS += [BINDINGS[0]._replace(**{name: value}) for name in SessionBinding._fields for value in ("", "other")]
Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


class Driven:
    """A store whose coroutine methods are plain ones, run as code of one kind would run them."""

    def __init__(self, store: Any, run: Run) -> None:
        self.it, self.run = store, run

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.it, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *args, **kwargs: self.run(lambda: found(*args, **kwargs))


@contextmanager
def running_as(mode: str) -> Iterator[Run]:
    """What runs coroutines: in this thread, or in an event loop in another."""
    if mode == "blocking":
        yield lambda work: run_sync(work())
    else:
        with start_blocking_portal(mode) as portal:
            yield portal.call


@contextmanager
def opened(_: str, mode: str, url: str) -> Iterator[Driven]:
    with running_as(mode) as run:
        store = open_store(url)
        try:
            yield Driven(store, run)
        finally:
            run(store.aclose)


@pytest.fixture(params=STORES, ids="-".join)
def about(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str, str]:
    """A kind of store, how it is used, and the URL of one that is empty."""
    kind, mode = request.param
    if kind in SERVERS:
        return kind, mode, new_store(request.getfixturevalue(kind))
    files = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/store.db", "pickle": f"pickle://{tmp_path}/store"}
    return kind, mode, files.get(kind) or TEST_STORE.replace("{unique}", uuid.uuid4().hex)


@pytest.fixture
def store(about: tuple[str, str, str]) -> Iterator[Any]:
    with opened(*about) as found:
        yield found


def assert_told_all(store: Any, cursor: int) -> None:
    """Nothing is told again; but for a moment, while somebody else is at work in the database."""
    ends = time.monotonic() + 10
    while (told := store.revocations(cursor))[1] and time.monotonic() < ends:
        cursor = told[0]
    assert told[1] == []


def row(sid: str = "sid", **fields: Any) -> SessionRow:
    return replace(SessionRow(sid.encode(), sid, "ada", 1.0, 1.0, 1000.0, 5000.0), **fields)


small = st.integers(0, 2)
rows = st.builds(
    row,
    generation=st.integers(0, 3),
    branch=small,
    rotated_at=st.sampled_from([None, 95.0, 50.0]),
    promoted_branch=st.none() | small,
    idempotency_hash=st.none() | st.just(b"a"),
    first_used_branch=st.none() | small,
    coordinated=st.booleans(),
    idempotency_key_repeated=st.booleans(),
    presenter=st.sampled_from(["", "203.0.113.0/24 curl"]),
    shared=st.booleans(),
    shared_streak=small,
    used_at=st.sampled_from([1.0, -1.0]),  # -1.0 is in the hour before
    used_earlier_at=st.none() | st.just(0.5),
    revoked_at=st.none() | st.just(50.0),
    idle_expires_at=st.sampled_from([NOW, NOW + 1, 900.0]),
    expires_at=st.sampled_from([NOW, NOW + 1, 1200.0]),
    jkt=st.none() | st.just(b"k" * 32),
    stamp=st.none() | st.just(b"s" * 16),
    newest_scope=st.sampled_from([None, b"", b"read"]),
)
tokens = st.builds(
    PresentedToken,
    st.integers(0, 4),
    small,
    st.sampled_from([None, b"a", b"z"]),
    st.sampled_from(["", "::/64 curl"]),
    st.sampled_from([None, b"k" * 32, b"l" * 32]),
    st.sampled_from([None, b"", b'" read write']),
)


def examples(about: tuple[str, str, str], blocking: int) -> settings:
    """The database decides, and a loop only carries the question: there a part of the examples says the same."""
    return settings(max_examples=blocking if about[1] == "blocking" else blocking // 5, deadline=None)


def test_rotate_is_r1_and_nothing_else(store: Any, about: tuple[str, str, str]) -> None:
    @examples(about, 200)
    @given(before=rows, token=tokens, number=st.integers(0, 2**60))
    def rotates(before: SessionRow, token: PresentedToken, number: int) -> None:
        before = replace(before, key=number.to_bytes(8, "big"), sid=str(number))
        store.insert(before) if store.read(before.key) is None else None
        before = store.read(before.key)
        rotated = store.rotate(before.key, token, NOW, Policy(refresh_ttl=300.0))
        after, verdict = present(before, token, NOW, Policy(refresh_ttl=300.0))
        assert rotated is (verdict is Verdict.ROTATED)
        assert store.read(before.key) == (after if rotated else before)

    rotates()


def test_a_row_that_was_not_read_is_rotated_alike(store: Any, about: tuple[str, str, str]) -> None:
    @examples(about, 100)
    @given(before=rows, token=tokens, number=st.integers(2**60, 2**61), binding=st.sampled_from([None, *BINDINGS]))
    def rotates(before: SessionRow, token: PresentedToken, number: int, binding: SessionBinding | None) -> None:
        before = replace(before, key=number.to_bytes(8, "big"), sid=str(number), **BINDINGS[0]._asdict())
        store.insert(before) if store.read(before.key) is None else None
        before = store.read(before.key)
        rotated = store.rotate_returning(before.key, token, NOW, Policy(refresh_ttl=300.0), binding)
        after, verdict = present(before, token, NOW, Policy(refresh_ttl=300.0))
        allowed = verdict is Verdict.ROTATED and binding in (None, BINDINGS[0])
        assert rotated == (before.facts if allowed else None)
        assert store.read(before.key) == (after if allowed else before)
        assert store.rotate_returning(b"nobody's", token, NOW, Policy(refresh_ttl=300.0), None) is None

    rotates()


def test_a_session_row_is_read_as_it_was_written(store: Any) -> None:
    full = row(
        generation=2**40,
        branch=3,
        rotated_at=1.5,
        promoted_branch=0,
        idempotency_hash=b"\0",
        first_used_branch=1,
        coordinated=True,
        label="läptop",
        client_id="web",
        issuer="https://id.example.com",
        audience="shop",
        jkt=bytes(range(32)),
        stamp=bytes(range(16)),
    )
    store.insert(full)
    assert store.read(full.key) == full
    assert store.read(b"other") is None


def test_compare_and_set_replaces_only_what_was_read(store: Any) -> None:
    before = row()
    store.insert(before)
    branched = replace(before, branch=1, idempotency_hash=b"x")
    assert store.compare_and_set(before, branched, 0.0) is True
    assert store.compare_and_set(before, replace(before, branch=2), 0.0) is False
    assert store.read(before.key) == branched


def test_compare_and_set_never_revives_a_revoked_session(store: Any) -> None:
    before = row()
    store.insert(before)
    store.revoke(NOW, "revoked", NOW + 9, sid="sid")
    assert store.compare_and_set(before, replace(before, branch=1), 0.0) is False
    assert store.rotate(before.key, PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0)) is False


def test_revocations_are_told_once_to_each_cursor(store: Any) -> None:
    for sid in ("a", "b", "c"):
        store.insert(row(sid))
    cursor, revoked = store.revocations(0)
    assert revoked == []
    assert store.revoke(NOW, "logged_out", NOW + 9, sid="a") == ["a"]
    assert store.compare_and_set(row("b"), replace(row("b"), revoked_at=NOW, revoked_why="reuse"), NOW + 9) is True
    cursor, revoked = store.revocations(cursor)
    assert sorted(revoked) == [("a", NOW + 9), ("b", NOW + 9)]
    assert_told_all(store, cursor)
    assert store.revoke(NOW, "revoked", NOW + 9, subject="ada", except_sid="c") == []
    assert store.revoke(NOW, "revoked", NOW + 9, subject="ada") == ["c"]


def test_only_living_sessions_are_ended(store: Any) -> None:
    for sid, fields in {"alive": {}, "idle": {"idle_expires_at": NOW}, "old": {"expires_at": NOW}}.items():
        store.insert(row(sid, **fields))
    assert store.revoke(NOW, "revoked", NOW + 9, subject="ada") == ["alive"]
    assert store.revoke(NOW, "revoked", NOW + 9, sid="idle") == []
    assert store.revocations(0)[1] == [("alive", NOW + 9)]


def test_revoke_ends_only_sessions_that_match_every_argument(store: Any) -> None:
    for sid, subject in (("a", "ada"), ("b", "ada"), ("c", "bob")):
        store.insert(row(sid, subject=subject))
    end = functools.partial(store.revoke, NOW, "revoked", NOW + 9)
    assert end(sid="a", subject="bob") == []
    assert end(sid="a", except_sid="a") == []
    assert end(sid="") == end(subject="") == []
    assert end(sid="a", subject="ada") == ["a"]
    assert sorted(end()) == ["b", "c"]


def test_revocations_are_forgotten_when_no_token_can_live(store: Any) -> None:
    for number in range(50):
        store.insert(row(str(number)))
        store.revoke(NOW + number, "revoked", NOW + number + 5, sid=str(number))
    cursor, revoked = store.revocations(0)
    assert len(revoked) <= 7
    store.insert(row("new"))
    store.revoke(NOW, "revoked", NOW + 999, sid="new")
    assert store.revocations(cursor)[1] == [("new", NOW + 999)], "the cursor counts on"


def test_a_session_that_was_cleared_away_is_found_by_nothing(store: Any) -> None:
    store.insert(row("old", expires_at=50.0))
    store.insert(row("new", created_at=NOW))
    assert store.sessions("ada") == [row("new", created_at=NOW)]
    assert store.sessions(sid="old") == []
    assert store.revoke(1.0, "revoked", 9.0, sid="old") == []
    store.record_first_use("old", 0, 0)
    assert store.read(b"old") is None


def test_sessions_are_found_by_subject_and_by_sid(store: Any) -> None:
    store.insert(row("a", used_at=5.0))
    store.insert(row("b", used_at=9.0))
    store.insert(row("c", subject="bob"))
    assert [found.sid for found in store.sessions("ada")] == ["b", "a"]
    assert [found.sid for found in store.sessions(sid="c")] == ["c"]
    assert len(store.sessions()) == 3


def test_sessions_that_are_long_over_are_cleared_away_at_a_login(store: Any) -> None:
    for number in range(150):
        store.insert(row(str(number), expires_at=50.0, created_at=1.0))
    store.insert(row("new", created_at=NOW))
    assert len(store.sessions()) == 51, "at most a hundred at a time"
    store.insert(row("newer", created_at=NOW))
    assert {found.sid for found in store.sessions()} == {"new", "newer"}


def test_the_first_use_is_recorded_once(store: Any) -> None:
    store.insert(row(generation=3))
    store.record_first_use("sid", 2, 0)
    assert store.read(b"sid").first_used_branch is None
    store.record_first_use("sid", 3, 1)
    store.record_first_use("sid", 3, 0)
    assert store.read(b"sid").first_used_branch == 1


def test_the_first_keys_are_made_once(store: Any) -> None:
    one, two = new_mac_key(1, 0.0, 0.0), new_mac_key(2, 0.0, 0.0)
    store.save_keys([one], first=True)
    store.save_keys([two], first=True)
    assert store.keys() == [one]
    store.save_keys([replace(one, verifies_until=5.0), two])
    assert {key.kid: key.verifies_until for key in list(store.keys())} == {"1": 5.0, "2": None}
    store.save_keys([replace(one, token_ttl=60.0)])
    store.save_keys([replace(one, verifies_until=9.0, token_ttl=30.0)])
    [ended, _] = store.keys()
    assert (ended.verifies_until, ended.token_ttl) == (5.0, 60.0), "a key that ended does not come back"


def test_accounts_are_stored_changed_and_removed(store: Any) -> None:
    account = Account("ada", "Ada", "hash", 1.0)
    assert store.add_account(account) is True
    assert store.add_account(replace(account, shown="ADA")) is False
    assert store.account("ada") == account
    assert store.change_account("ada", "new") is True
    assert store.accounts() == [replace(account, password_hash="new")]
    assert store.change_account("ada", "late", expected="hash") is False, "it has another by now"
    assert store.change_account("ada", None, expected="hash") is False
    assert store.change_account("ada", "new", expected="hash", scope="admin") is False
    assert store.change_account("ada", "new", expected="new", scope="read write") is True
    assert store.account("ada").scope == "read write"
    assert store.change_account("ada", "newer", expected="new") is True
    assert store.account("ada").scope == "read write", "a new password changes no right"
    assert store.change_account("ada", "newer", scope="") is True
    assert store.account("ada").scope == ""
    assert store.accounts() == [replace(account, password_hash="newer")]
    assert store.change_account("ada", None, expected="newer") is True
    assert store.change_account("ada", None) is False
    assert store.change_account("ada", "x", expected="newer") is False
    assert store.account("ada") is None


# ---- markers ---------------------------------------------------------------------------------------------------------


def test_each_step_moves_a_marker_further_but_not_beyond_the_limit(store: Any) -> None:
    assert store.advance_marker(b"a", NOW, 5.0, 12.0) == NOW + 5
    assert store.advance_marker(b"a", NOW, 5.0, 12.0) == NOW + 10
    assert store.advance_marker(b"a", NOW + 1, 5.0, 12.0) == NOW + 13, "the most counts from now"
    assert store.advance_marker(b"b", NOW, 50.0, 12.0) == NOW + 12
    assert store.read_markers([b"b", b"nobody", b"a"]) == [NOW + 12, 0.0, NOW + 13]
    assert store.advance_marker(b"a", NOW + 20, 5.0, 12.0) == NOW + 25, "a time that is past counts as now"
    assert store.read_markers([]) == []


def test_markers_that_are_cleared_are_gone(store: Any) -> None:
    for key in (b"a", b"b", b"\0\xff"):
        store.advance_marker(key, NOW, 5.0, 60.0)
    store.clear_markers([b"a", b"\0\xff", b"nobody"])
    store.clear_markers([])
    assert store.read_markers([b"a", b"b", b"\0\xff"]) == [0.0, NOW + 5, 0.0]
    assert store.advance_marker(b"a", NOW, 5.0, 60.0) == NOW + 5


def test_markers_that_are_past_are_deleted(store: Any) -> None:
    for number in range(30):
        store.advance_marker(str(number).encode(), NOW, 1.0, 60.0)
    store.advance_marker(b"later", NOW + 100, 1.0, 60.0)
    left = [at for at in store.read_markers([str(number).encode() for number in range(30)]) if at > NOW + 100]
    assert left == []
    assert store.read_markers([b"later"]) == [NOW + 101]


def test_concurrent_advances_of_a_marker_all_count(store: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.advance_marker(b"a", NOW, 1.0, 1000.0), range(64)))
    assert store.read_markers([b"a"]) == [NOW + 64]


# ---- many at once ----------------------------------------------------------------------------------------------------


def test_sixteen_threads_with_one_token_get_one_successor(about: tuple[str, str, str]) -> None:
    with opened(*about) as store:
        sessions = Sessions(store.it)
        token = sessions.create("ada").refresh_token or ""
        with ThreadPoolExecutor(16) as pool:
            responses = set(pool.map(lambda _: sessions.refresh(token).refresh_token, range(16)))
        assert len(responses) == 1
        assert [info.revoked_at for info in sessions.list_sessions("ada")] == [None]
        sessions.close()


def test_sixty_four_tasks_with_one_token_get_one_successor(about: tuple[str, str, str]) -> None:
    with opened(*about) as store:
        sessions = Sessions(store.it)
        token = sessions.create("ada").refresh_token or ""
        responses: set[str | None] = set()

        async def one() -> None:
            responses.add((await sessions.arefresh(token)).refresh_token)

        async def all_at_once() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(64):
                    group.start_soon(one)
            await sessions.aclose()

        kind = "trio" if about[1] == "trio" else "asyncio"
        anyio.run(all_at_once, backend=kind)
        assert len(responses) == 1


def test_a_logout_that_races_a_refresh_wins(about: tuple[str, str, str]) -> None:
    with opened(*about) as store:
        sessions = Sessions(store.it)
        for _ in range(10):
            granted = sessions.create("ada")
            together = threading.Barrier(2)

            def refresh(token: str, together: threading.Barrier = together) -> None:
                together.wait(10)
                with contextlib.suppress(InvalidGrant):
                    sessions.refresh(token)

            with ThreadPoolExecutor(1) as pool:
                racing = pool.submit(refresh, granted.refresh_token or "")
                together.wait(10)
                assert sessions.logout(refresh_token=granted.refresh_token) is True
                racing.result(20)
            assert sessions.list_sessions("ada") == []
        sessions.close()


def test_all_sessions_of_a_subject_end_while_they_are_refreshed(about: tuple[str, str, str]) -> None:
    with opened(*about) as store:
        sessions = Sessions(store.it)
        tokens = [sessions.create("ada").refresh_token or "" for _ in range(8)]
        going = threading.Event()

        def refresh(token: str) -> None:
            with contextlib.suppress(InvalidGrant):
                for _ in range(500):
                    token = sessions.refresh(token).refresh_token or ""
                    going.set()

        with ThreadPoolExecutor(10) as pool:
            work = [pool.submit(refresh, token) for token in tokens]
            assert going.wait(20)
            ended = sum(pool.map(lambda _: sessions.revoke_subject("ada"), range(2)))
            for one in work:
                one.result(60)
        assert ended == 8
        assert sessions.list_sessions("ada") == []
        sessions.close()


# ---- two on one database, and none -----------------------------------------------------------------------------------


@pytest.mark.parametrize("about", SHARED, indirect=True, ids="-".join)
def test_two_stores_on_one_database_see_each_others_work(about: tuple[str, str, str]) -> None:
    with opened(*about) as one, opened(*about) as other:
        one.insert(row())
        assert other.rotate(b"sid", PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0)) is True
        assert one.rotate(b"sid", PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0)) is False
        assert one.read(b"sid") == other.read(b"sid")
        cursor, _ = one.revocations(0)
        assert other.revoke(NOW, "revoked", NOW + 9, sid="sid") == ["sid"]
        assert one.revocations(cursor)[1] == [("sid", NOW + 9)]
        one.save_keys([new_mac_key(1, 0.0, 0.0)], first=True)
        other.save_keys([new_mac_key(2, 0.0, 0.0)], first=True)
        assert [key.kid for key in list(other.keys())] == ["1"]
        assert one.advance_marker(b"a", NOW, 5.0, 60.0) < other.advance_marker(b"a", NOW, 5.0, 60.0)


def refused(sessions: Sessions, token: str) -> str:
    """Why it is, as soon as it is."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        try:
            sessions.verify(token)
        except InvalidToken as error:
            return error.reason
    return "never"


@pytest.mark.parametrize("about", SHARED, indirect=True, ids="-".join)
def test_a_session_revoked_on_one_node_is_rejected_on_another(about: tuple[str, str, str]) -> None:
    with opened(*about) as one, opened(*about) as other:
        here, there = Sessions(one.it), Sessions(other.it)
        token = here.create("ada").access_token
        assert there.verify(token).subject == "ada"
        here.logout(access_token=token)
        assert refused(there, token) == "revoked"
        here.close()
        there.close()


def test_health_of_a_reachable_store_raises_nothing(store: Any) -> None:
    assert store.health() is None


@pytest.fixture(scope="module")
def mortal() -> Iterator[Callable[[str], Service]]:
    """A server of each kind that may be stopped."""
    with contextlib.ExitStack() as servers:
        yield functools.cache(lambda kind: servers.enter_context(SERVERS[kind]()))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", SERVERS)
def test_a_database_that_stopped_is_unavailable_and_one_that_is_back_serves(
    mortal: Callable[[str], Service], kind: str, mode: str
) -> None:
    server = mortal(kind)
    with opened(kind, mode, new_store(server)) as store:
        store.insert(row())
        server.stop(signal.SIGINT)
        try:
            for ask in (store.health, lambda: store.read(b"sid"), lambda: store.revoke(NOW, "revoked", NOW + 9)):
                began = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    ask()
                assert time.monotonic() - began < 15
        finally:
            server.start()
        assert eventually(lambda: store.read(b"sid"), StoreUnavailable) == row()
        assert store.rotate(b"sid", PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0)) is True


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres", "redis"])
def test_a_session_that_is_renamed_while_its_refresh_is_decided_keeps_its_name(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/store.db"}
    store = open_store(urls.get(kind) or new_store(request.getfixturevalue(kind)))
    before = row(f"renamed in {kind}", generation=1, rotated_at=2.0, promoted_branch=0)
    run_sync(store.insert(before))
    assert run_sync(store.compare_and_set(before, replace(before, label="kitchen"), 0.0))
    run_sync(store.compare_and_set(before, replace(before, branch=1), 0.0))
    after = run_sync(store.read(before.key))
    assert after is not None
    assert after.label == "kitchen"
    store.close()
