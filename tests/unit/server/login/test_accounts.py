"""The embedded accounts."""

from __future__ import annotations

import time
from typing import Any

import pytest
from argon2 import PasswordHasher

from unbroken._sync import run_sync
from unbroken.errors import InvalidRequest
from unbroken.server import Accounts, MemorySessionStore

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def accounts() -> Accounts:
    made = Accounts(MemorySessionStore(), CHEAP)
    made.add("Ada", "sécret")
    return made


def test_the_right_password_gives_the_subject_in_any_spelling_of_the_name(accounts: Accounts) -> None:
    assert accounts.authenticate("Ada", "sécret") == "Ada"
    assert accounts.authenticate("ADA", "sécret") == "Ada"
    assert accounts.authenticate("\uff21da", "sécret") == "Ada", "full width is the same letter"


@pytest.mark.parametrize(
    ("name", "password"), [("Ada", "secret"), ("Ada", ""), ("bob", "sécret"), ("", ""), ("a\0", "x")]
)
def test_anything_else_is_refused(accounts: Accounts, name: str, password: str) -> None:
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


def test_hashes_are_argon2id_and_replaced_when_the_parameters_change(accounts: Accounts) -> None:
    store = accounts._store
    before = accounts.list()[0].password_hash
    assert before.startswith("$argon2id$")
    assert Accounts(store, PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)).authenticate("ada", "sécret")
    account = run_sync(store.account("ada"))
    assert account is not None
    assert "t=2" in account.password_hash
    assert before not in repr(account)


def test_changing_and_removing(accounts: Accounts) -> None:
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


def test_a_rehash_does_not_undo_a_change_of_the_password(accounts: Accounts) -> None:
    other = Accounts(accounts._store, BETTER)
    slow = during_the_rehash(accounts._store, lambda: other.set_password("ada", "new"))
    assert slow.authenticate("ada", "sécret") is None, "the password was changed meanwhile"
    assert other.authenticate("ada", "sécret") is None
    assert other.authenticate("ada", "new") == "Ada"


def test_a_rehash_does_not_bring_a_removed_account_back(accounts: Accounts) -> None:
    slow = during_the_rehash(accounts._store, lambda: accounts.list() and accounts.remove("ada"))
    assert slow.authenticate("ada", "sécret") is None
    assert accounts.list() == []


def test_two_logins_that_both_rehash_are_both_right(accounts: Accounts) -> None:
    other = Accounts(accounts._store, BETTER)
    slow = during_the_rehash(accounts._store, lambda: other.authenticate("ada", "sécret"))
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


def test_a_hash_with_older_parameters_costs_one_with_todays_too(accounts: Accounts, checked: list[str]) -> None:
    today = Accounts(accounts._store, BETTER)
    assert today.authenticate("ada", "wrong") is None
    assert [hashed.split("$")[3] for hashed in checked] == ["m=8,t=1,p=1", "m=8,t=2,p=1"]


def test_a_damaged_hash_costs_as_much_as_any(accounts: Accounts, checked: list[str]) -> None:
    run_sync(accounts._store.change_account("ada", "damaged"))
    assert accounts.authenticate("ada", "sécret") is None
    assert len(checked) == 2


@pytest.mark.parametrize("name", ["\udcff", "a\ud800"])
def test_a_name_that_is_no_text_has_no_account(accounts: Accounts, name: str) -> None:
    assert accounts.authenticate(name, "x") is None
    assert accounts.subject(name) is None
    with pytest.raises(InvalidRequest):
        accounts.remove(name)
