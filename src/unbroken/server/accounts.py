"""The embedded account table: names and argon2id hashes (RFC 9106), for servers that have no users of their own.

1. A wrong name and a wrong password cost the same time and get the same answer.
2. Names are compared after NFKC and case folding, so that two accounts cannot look alike.
3. A hash made with older parameters is replaced at the next login.
4. Whoever changes a password or removes an account ends its sessions: ``Sessions.revoke_all``.
"""

from __future__ import annotations

import functools
import time
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from unbroken._once import run_once
from unbroken.errors import InvalidRequest
from unbroken.server.stores import Account, Store

__all__ = ["Accounts"]

LONGEST_NAME = 128
LONGEST_PASSWORD = 1024


class Accounts:
    """The accounts in *store*. The methods block; ``authenticate`` takes some 50 ms on purpose."""

    def __init__(self, store: Store, hasher: PasswordHasher | None = None) -> None:
        self._store, self._hasher = store, hasher or PasswordHasher()

    def authenticate(self, username: str, password: str) -> str | None:
        """The subject of this account, which is its name; None if name or password is wrong."""
        account = run_once(self._store.account(_folded(username)))
        hashed = account.password_hash if account else self._nobody
        try:
            self._hasher.verify(hashed, password[: LONGEST_PASSWORD + 1])
        except (VerificationError, InvalidHashError, UnicodeError):
            return None
        if account is None:
            return None
        if self._hasher.check_needs_rehash(hashed):
            run_once(self._store.change_account(account.name, self._hasher.hash(password)))
        return account.shown

    def add(self, name: str, password: str) -> None:
        """Makes an account. Raises InvalidRequest for a name that is taken or odd, and for an empty password."""
        _check_name(name)
        account = Account(_folded(name), name, self._hash(password), time.time())
        if not run_once(self._store.add_account(account)):
            raise InvalidRequest(f"there is a user {name!r} already")

    def set_password(self, name: str, password: str) -> None:
        """Changes a password; end the subject's sessions afterwards. Raises InvalidRequest if there is no such user."""
        if not run_once(self._store.change_account(_folded(name), self._hash(password))):
            raise InvalidRequest(f"there is no user {name!r}")

    def remove(self, name: str) -> None:
        """Removes an account; end its sessions afterwards. Raises InvalidRequest if there is no such user."""
        if not run_once(self._store.change_account(_folded(name), None)):
            raise InvalidRequest(f"there is no user {name!r}")

    def list(self) -> list[Account]:
        """All accounts, by name."""
        return run_once(self._store.accounts())

    def subject(self, name: str) -> str | None:
        """The subject of the account with this name, in any spelling; None if there is none."""
        account = run_once(self._store.account(_folded(name)))
        return account.shown if account else None

    @functools.cached_property
    def _nobody(self) -> str:
        """A hash to compare with when there is no account, so that this takes as long."""
        return self._hasher.hash("nobody")

    def _hash(self, password: str) -> str:
        if not 1 <= len(password) <= LONGEST_PASSWORD:
            raise InvalidRequest(f"a password has 1 to {LONGEST_PASSWORD} characters")
        try:
            return self._hasher.hash(password)
        except UnicodeError:
            raise InvalidRequest("the password is not valid text") from None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise InvalidRequest(f"a user name has 1 to {LONGEST_NAME} printable characters and no space at its ends")
