"""The embedded accounts."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from unbroken._concurrency import run_sync
from unbroken.errors import ConfigurationError, InvalidRequest
from unbroken.server import Accounts, MemorySessionStore, Sessions, SqliteSessionStore
from unbroken.server.login.names import folded_name
from unbroken.server.stores import Account

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def store() -> MemorySessionStore:
    return MemorySessionStore()


@pytest.fixture
def accounts(store: MemorySessionStore) -> Accounts:
    made = Accounts(store, CHEAP)
    made.add("Ada", "sécret")
    return made


def test_the_right_password_gives_the_subject_in_any_spelling_of_the_name(accounts: Accounts) -> None:
    assert accounts.authenticate("Ada", "sécret") == "Ada"
    assert accounts.authenticate("ADA", "sécret") == "Ada"
    assert accounts.authenticate("\uff21da", "sécret") == "Ada", "full width is the same letter"


@pytest.mark.parametrize(
    ("name", "password"), [("Ada", "secret"), ("Ada", ""), ("bob", "sécret"), ("", ""), ("a\0", "x")]
)
def test_a_wrong_name_or_password_gives_no_subject(accounts: Accounts, name: str, password: str) -> None:
    assert accounts.authenticate(name, password) is None


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that a password is compared with."""
    hashes: list[str] = []
    real = PasswordHasher.verify

    def verify(self: PasswordHasher, hashed: str, password: str) -> bool:
        hashes.append(hashed)
        return real(self, hashed, password)

    monkeypatch.setattr(PasswordHasher, "verify", verify)
    return hashes


def test_an_unknown_name_costs_a_hash_too(accounts: Accounts, checked: list[str]) -> None:
    accounts.authenticate("bob", "x")
    accounts.authenticate("ada", "x")
    assert len(checked) == 2


def test_hashes_are_argon2id_and_replaced_when_the_parameters_change(
    accounts: Accounts, store: MemorySessionStore
) -> None:
    before = accounts.list()[0].password_hash
    assert before.startswith("$argon2id$")
    assert Accounts(store, PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)).authenticate("ada", "sécret")
    account = run_sync(store.account("ada"))
    assert account is not None
    assert "t=2" in account.password_hash
    assert before not in repr(account)


def test_a_changed_password_replaces_the_old_one_and_a_removed_account_is_gone(accounts: Accounts) -> None:
    accounts.set_password("ADA", "new")
    assert accounts.authenticate("ada", "sécret") is None
    assert accounts.authenticate("ada", "new") == "Ada"
    accounts.remove("ada")
    assert accounts.list() == []
    for change in (lambda: accounts.remove("ada"), lambda: accounts.set_password("ada", "x")):
        with pytest.raises(InvalidRequest, match="no user"):
            change()


@pytest.mark.parametrize("name", ["", " ada", "a\nb", "x" * 129, "\0", "ADA"])
def test_odd_and_taken_names_are_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(InvalidRequest):
        accounts.add(name, "password")


@pytest.mark.parametrize("password", ["", "x" * 1025, "\ud800"])
def test_odd_passwords_are_refused(accounts: Accounts, password: str) -> None:
    with pytest.raises(InvalidRequest):
        accounts.add("bob", password)


# ---- while a password is being checked -------------------------------------------------------------------------------

BETTER = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)


def during_the_rehash(store: Any, change: Any) -> Accounts:
    """Accounts whose hashes are old; *change* happens between the check of the password and the new hash."""

    class Slow(PasswordHasher):
        def hash(self, password: str | bytes, **more: Any) -> str:
            if password == "sécret":
                change()
            return super().hash(password, **more)

    return Accounts(store, Slow(time_cost=2, memory_cost=8, parallelism=1))


def test_a_rehash_does_not_undo_a_change_of_the_password(accounts: Accounts, store: MemorySessionStore) -> None:
    other = Accounts(store, BETTER)
    slow = during_the_rehash(store, lambda: other.set_password("ada", "new"))
    assert slow.authenticate("ada", "sécret") is None, "the password was changed meanwhile"
    assert other.authenticate("ada", "sécret") is None
    assert other.authenticate("ada", "new") == "Ada"


def test_a_rehash_does_not_bring_a_removed_account_back(accounts: Accounts, store: MemorySessionStore) -> None:
    slow = during_the_rehash(store, lambda: accounts.list() and accounts.remove("ada"))
    assert slow.authenticate("ada", "sécret") is None
    assert accounts.list() == []


def test_two_logins_that_both_rehash_are_both_right(accounts: Accounts, store: MemorySessionStore) -> None:
    other = Accounts(store, BETTER)
    slow = during_the_rehash(store, lambda: other.authenticate("ada", "sécret"))
    assert slow.authenticate("ada", "sécret") == "Ada"


def test_a_subject_knows_whether_its_password_is_still_the_same(accounts: Accounts) -> None:
    subject: Any = accounts.authenticate("ada", "sécret")
    assert subject.is_unchanged() is True
    accounts.set_password("ada", "sécret")
    assert subject.is_unchanged() is False, "set anew, so its sessions were to end"
    subject = accounts.authenticate("ada", "sécret")
    accounts.remove("ada")
    assert subject.is_unchanged() is False


# ---- what attackers try ----------------------------------------------------------------------------------------------


def test_a_name_that_is_too_long_is_not_even_folded(accounts: Accounts, checked: list[str]) -> None:
    slow = "a" + "\u0345" * 15_500 + "\u0334" * 15_500  # normalising takes a time that grows with the square
    began = time.process_time()
    assert accounts.authenticate(slow, "x") is None
    assert accounts.subject(slow) is None
    with pytest.raises(InvalidRequest):
        accounts.remove(slow)
    assert time.process_time() - began < 0.3
    assert len(checked) == 1, "it costs a hash all the same"


def test_the_hash_for_unknown_names_is_made_before_the_first_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemorySessionStore()
    Accounts(store, CHEAP).add("ada", "x")
    made: dict[str, int] = {}
    for name in ("ada", "bob"):
        hashes: list[object] = []
        real = PasswordHasher.hash
        with monkeypatch.context() as patched:
            patched.setattr(PasswordHasher, "hash", lambda *a, real=real, hashes=hashes: hashes.append(a) or real(*a))
            Accounts(store, CHEAP).authenticate(name, "wrong")
        made[name] = len(hashes)
    assert made == {"ada": 1, "bob": 1}, "the first login costs the same for both"


def test_a_hash_with_older_parameters_costs_one_with_todays_too(
    accounts: Accounts, store: MemorySessionStore, checked: list[str]
) -> None:
    today = Accounts(store, BETTER)
    assert today.authenticate("ada", "wrong") is None
    assert [hashed.split("$")[3] for hashed in checked] == ["m=8,t=1,p=1", "m=8,t=2,p=1"]


def test_a_damaged_hash_costs_as_much_as_any(accounts: Accounts, store: MemorySessionStore, checked: list[str]) -> None:
    run_sync(store.change_account("ada", "damaged"))
    assert accounts.authenticate("ada", "sécret") is None
    assert [hashed.split("$")[3] for hashed in checked] == ["m=8,t=1,p=1"]


@pytest.mark.parametrize("name", ["\udcff", "a\ud800"])
def test_a_name_that_is_no_text_has_no_account(accounts: Accounts, name: str) -> None:
    assert accounts.authenticate(name, "x") is None
    assert accounts.subject(name) is None
    with pytest.raises(InvalidRequest):
        accounts.remove(name)


# ---- what ends sessions, and whom a subject means --------------------------------------------------------------------


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(MemorySessionStore(), on_event=[])


def test_a_new_password_ends_the_sessions_but_the_one_that_is_kept(sessions: Sessions) -> None:
    accounts = Accounts(sessions, CHEAP)
    accounts.add("ada", "one")
    for _ in range(3):
        sessions.create("ada")
    other, kept = sessions.create("bob"), sessions.list_sessions("ada")[0].sid
    assert accounts.set_password("ada", "two", keep=kept) == 2
    assert [info.sid for info in sessions.list_sessions("ada")] == [kept]
    assert accounts.set_password("ada", "three") == 1
    assert sessions.list_sessions("ada") == []
    assert sessions.refresh(other.refresh_token or "").refresh_seq == 1


def test_listeners_hear_of_the_sessions_that_end_with_an_account() -> None:
    told: list[Any] = []
    sessions = Sessions(MemorySessionStore(), on_event=told.append)
    accounts = Accounts(sessions, CHEAP)
    accounts.add("ada", "one")
    sessions.create("ada")
    assert accounts.remove("ada") == 1
    assert [type(event).__name__ for event in told] == ["SessionCreated", "SessionRevoked"]


def test_a_name_that_is_given_again_is_another_subject(sessions: Sessions) -> None:
    accounts = Accounts(sessions, CHEAP)
    subjects = []
    for _ in range(3):
        accounts.add("Ada", "x")
        subjects.append(accounts.subject("ada") or "")
        assert accounts.authenticate("ada", "x") == subjects[-1]
        assert [accounts.is_active(subject) for subject in subjects] == [False] * (len(subjects) - 1) + [True]
        accounts.remove("ada")
    assert subjects[0] == "Ada"
    assert len(set(subjects)) == 3
    assert {subject.partition("#")[0] for subject in subjects} == {"Ada"}
    assert accounts.list() == []
    assert not any(map(accounts.is_active, subjects))


def test_nobody_takes_the_subject_of_somebody_who_is_gone_as_a_name(sessions: Sessions) -> None:
    accounts = Accounts(sessions, CHEAP)
    for _ in range(2):
        accounts.add("ada", "x")
        gone = accounts.subject("ada") or ""
        accounts.remove("ada")
    accounts.add(gone, "x")
    assert accounts.subject(gone) != gone
    assert accounts.is_active(accounts.subject(gone) or "")
    assert not accounts.is_active(gone)


def test_of_a_removed_account_the_store_keeps_no_name(tmp_path: Path) -> None:
    store = SqliteSessionStore(tmp_path / "s.db")
    accounts = Accounts(store, CHEAP)
    accounts.add("a-special-name", "x")
    accounts.remove("a-special-name")
    assert "special" not in repr(run_sync(store.accounts()))


def test_an_account_from_before_subjects_keeps_its_name_as_subject(sessions: Sessions) -> None:
    run_sync(sessions.store.add_account(Account("ada#1", "Ada#1", CHEAP.hash("x"), 1.0)))
    accounts = Accounts(sessions, CHEAP)
    assert accounts.authenticate("ada#1", "x") == accounts.subject("ADA#1") == "Ada#1"
    assert accounts.is_active("Ada#1")


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Ada Lovelace", "ada@example.com", "Zoë", "山田たろう", "김철수", "o'brien", "ada_1-x+y", "Ørsted", "имя"]
)
def test_names_of_many_languages_are_good(accounts: Accounts, name: str) -> None:
    accounts.add(name, "x")
    assert accounts.authenticate(name.upper(), "x") == name


def test_a_name_that_is_no_longer_allowed_logs_in_changes_its_password_and_is_removed(
    accounts: Accounts, store: MemorySessionStore
) -> None:
    name = "Аda\u3164"
    run_sync(store.add_account(Account(folded_name(name), name, CHEAP.hash("x"), 1.0)))
    assert accounts.authenticate(name, "x") == name
    accounts.set_password(name, "y")
    assert accounts.authenticate(name, "y") == name
    accounts.remove(name)
    with pytest.raises(InvalidRequest):
        accounts.add(name, "x")


def test_of_two_processes_that_add_twins_at_once_none_or_one_succeeds() -> None:
    store = MemorySessionStore()
    added: list[str] = []
    barrier = threading.Barrier(2)

    def add(name: str) -> None:
        barrier.wait(10)
        try:
            Accounts(store, CHEAP).add(name, "x")
            added.append(name)
        except InvalidRequest:
            pass

    threads = [threading.Thread(target=add, args=(name,)) for name in ("paypal", "paypaI")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(added) <= 1
    assert len(Accounts(store).list()) == len(added)


# ---- scopes ----------------------------------------------------------------------------------------------------------


def test_an_account_has_the_scope_that_was_set(accounts: Accounts) -> None:
    assert accounts.scopes_of("Ada") == []
    accounts.set_scopes("ADA", ["read", "write", "read"])
    assert accounts.scopes_of("Ada") == ["read", "write"]
    accounts.set_password("Ada", "another")
    assert accounts.scopes_of("Ada") == ["read", "write"], "a new password changes no right"
    accounts.set_scopes("Ada", [])
    assert accounts.scopes_of("Ada") == []
    assert accounts.scopes_of("bob") == []


def test_the_next_account_of_a_name_has_nothing_of_the_one_before(accounts: Accounts) -> None:
    accounts.set_scopes("Ada", ["admin"])
    accounts.remove("Ada")
    accounts.add("Ada", "sécret")
    subject = accounts.subject("Ada") or ""
    assert (accounts.scopes_of("Ada"), accounts.scopes_of(subject)) == ([], [])
    accounts.set_scopes("Ada", ["read"])
    assert (accounts.scopes_of("Ada"), accounts.scopes_of(subject)) == ([], ["read"])


@pytest.mark.parametrize("wrong", [["two words"], [""], ['a"b'], ["naïve"], ["a\\b"], ["\udcff"]])
def test_what_is_no_word_of_scope_is_refused(accounts: Accounts, wrong: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="no word of scope"):
        accounts.set_scopes("Ada", wrong)
    with pytest.raises(InvalidRequest, match="no user"):
        accounts.set_scopes("bob", ["read"])
    with pytest.raises(ConfigurationError, match="scopes must be"):
        accounts.set_scopes("Ada", "read")
