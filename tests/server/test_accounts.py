"""The embedded accounts."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from unbroken._once import run_once
from unbroken.errors import InvalidRequest
from unbroken.server import Accounts, MemoryStore

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def accounts() -> Accounts:
    made = Accounts(MemoryStore(), CHEAP)
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


def test_an_unknown_name_costs_a_hash_too(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    real = PasswordHasher.verify

    def verify(self: PasswordHasher, hashed: str, password: str) -> bool:
        checked.append(hashed)
        return real(self, hashed, password)

    monkeypatch.setattr(PasswordHasher, "verify", verify)
    accounts.authenticate("bob", "x")
    accounts.authenticate("ada", "x")
    assert len(checked) == 2


def test_hashes_are_argon2id_and_renewed_when_the_parameters_change(accounts: Accounts) -> None:
    store = accounts._store
    before = accounts.list()[0].password_hash
    assert before.startswith("$argon2id$")
    assert Accounts(store, PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)).authenticate("ada", "sécret")
    account = run_once(store.account("ada"))
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
