"""Names of accounts: which exist, by the time that a login takes, and which look like others."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from tests.support.attacks import Attacks
from unbroken._concurrency import run_sync
from unbroken.errors import InvalidRequest
from unbroken.server import Accounts, MemorySessionStore
from unbroken.server.stores import Account, open_store

Size = Callable[[int, int], int]
TODAY = PasswordHasher(time_cost=1, memory_cost=16, parallelism=1)
OLDER = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)
OLDEST = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def put(store: Any, name: str, password_hash: str) -> None:
    run_sync(store.add_account(Account(name, name, password_hash, 1.0)))


def table(store: Any = None) -> Any:
    """A store with accounts of every kind."""
    store = store or MemorySessionStore()
    for name, hasher in (("today", TODAY), ("older", OLDER), ("oldest", OLDEST)):
        put(store, name, hasher.hash("right"))
    put(store, "older-too", OLDER.hash("right"))
    put(store, "damaged", "$argon2id$nonsense")
    put(store, "locked", "!")
    return store


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parameters of each hash that is computed."""
    done: list[str] = []
    verify, make = PasswordHasher.verify, PasswordHasher.hash

    def counting_verify(self: PasswordHasher, hashed: Any, password: Any) -> bool:
        done.append(hashed.split("$")[3])
        return verify(self, hashed, password)

    def counting_hash(self: PasswordHasher, password: Any, **more: Any) -> str:
        made = make(self, password, **more)
        done.append(made.split("$")[3])
        return made

    monkeypatch.setattr(PasswordHasher, "verify", counting_verify)
    monkeypatch.setattr(PasswordHasher, "hash", counting_hash)
    return done


NAMES = (
    "today",
    "older",
    "oldest",
    "older-too",
    "damaged",
    "locked",
    "nobody",
    "somebody else",
    "TODAY",
    "x" * 500,
    "",
)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres", "redis"])
def test_every_login_computes_the_same_hashes(
    kind: str, work: list[str], attacks: Attacks, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    urls = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/s.db"}
    store = open_store(urls.get(kind) or request.getfixturevalue(kind).url)
    accounts = Accounts(table(store), TODAY)
    accounts.authenticate("first of this process", "wrong")
    seen = {}
    for name in NAMES:
        for password in ("wrong", "right", "", "x" * 1025, "\ud800"):
            work.clear()
            attacks.try_one()
            accounts.authenticate(name, password)  # a right one replaces an older hash
            seen[name, password] = sorted(work)
    store.close()
    assert {tuple(hashes) for hashes in seen.values()} == {("m=16,t=1,p=1", "m=8,t=1,p=1", "m=8,t=2,p=1")}


@pytest.mark.parametrize("name", ["today", "older", "nobody"])
def test_the_first_login_of_a_process_does_not_depend_on_the_name(name: str, work: list[str], attacks: Attacks) -> None:
    store = table()
    work.clear()
    attacks.try_one()
    Accounts(store, TODAY).authenticate(name, "wrong")
    checked = [one for one in work if one == "m=16,t=1,p=1"]
    assert len(checked) == 2, "one for the table, one for the login"


def test_the_time_of_a_login_does_not_tell_whether_a_name_exists(attacks: Attacks, size: Size) -> None:
    today, older = PasswordHasher(2, 4096, 1), PasswordHasher(1, 4096, 1)
    store = MemorySessionStore()
    put(store, "today", today.hash("right"))
    put(store, "older", older.hash("right"))
    accounts = Accounts(store, today)
    accounts.authenticate("warm up", "wrong")
    kinds = ("today", "older", "nobody")
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(size(25, 400)):
        for kind in random.sample(kinds, 3):
            attacks.try_one()
            began = time.thread_time()
            accounts.authenticate(kind, "wrong")
            times[kind].append(time.thread_time() - began)
    medians = {kind: statistics.median(found) for kind, found in times.items()}
    for kind in ("today", "older"):
        assert 0.8 < medians[kind] / medians["nobody"] < 1.25, medians


# ---- twins -----------------------------------------------------------------------------------------------------------

TWINS = [
    ("ada", "ada\u3164"),
    ("ada", "ada\u115f"),
    ("ada", "a\u200bda"),
    ("ada", "ada\u00ad"),
    ("ada", "\u2060ada"),
    ("ada", "ada\ufe0f"),
    ("ada", "ada\U000e0041"),
    ("ada", "\u202eada"),
    ("ada", "ada\u00a0"),
    ("ada", "ada\u034f"),
    ("ada", "\u0430da"),
    ("ada", "ad\u0251"),
    ("ada", "\u0430d\u0430"),
    ("ada", "\U0001d41ada"),
    ("ada", "\uff41da"),
    ("scope", "\u0455\u0441\u043e\u0440\u0435"),
    ("paypal", "paypaI"),
    ("paypal", "paypa1"),
    ("paypal", "\u0440\u0430\u0443\u0440\u0430l"),
    ("mark", "rnark"),
    ("boss", "b0ss"),
    ("boss", "BOSS"),
    ("admin", "adm\u0131n"),
    ("admin", "adrnin"),
    ("kate", "\u212aate"),
    ("hans", "han\u017f"),
    ("ada lovelace", "ada  lovelace"),
    ("ada lovelace", "ada\u2003lovelace"),
    ("user1", "userl"),
    ("user1", "user\u0661"),
    ("oleg", "\u03bfleg"),
    ("\u0430\u043d\u043d\u0430", "\u0430\u043dna"),
    ("a-b", "a\u2010b"),
    ("\u5c71\u7530", "\u5c71\u2f65"),
]


@pytest.mark.parametrize(("first", "second"), TWINS)
def test_no_account_looks_like_another_one(first: str, second: str, attacks: Attacks) -> None:
    for name, twin in ((first, second), (second, first)):
        accounts = Accounts(MemorySessionStore(), OLDEST)
        try:
            accounts.add(name, "x")
        except InvalidRequest:
            continue  # it is no name at all
        attacks.try_one()
        with pytest.raises(InvalidRequest):
            accounts.add(twin, "x")
        assert len(accounts.list()) == 1


def test_no_character_of_unicode_makes_an_invisible_twin(attacks: Attacks, size: Size) -> None:
    """Of every character that Unicode may show as nothing."""
    ignorable = [0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0x200B, 0x2010),
                 *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, *range(0xFE00, 0xFE10), 0xFEFF, 0xFFA0,
                 *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000, size(97, 1))]  # fmt: skip
    accounts = Accounts(MemorySessionStore(), OLDEST)
    accounts.add("ada", "x")
    for code in ignorable:
        for twin in (f"ada{chr(code)}", f"a{chr(code)}da"):
            attacks.try_one()
            with pytest.raises(InvalidRequest):
                accounts.add(twin, "x")
