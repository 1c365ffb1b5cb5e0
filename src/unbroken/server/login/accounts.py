"""The embedded account table: names and argon2id hashes (RFC 9106), for servers that have no users of their own.

1. A wrong name and a wrong password take the same time and get the same response.
2. Names are compared after NFKC and case folding, so that no two accounts look alike.
3. A hash with outdated parameters is replaced at the next login, unless the account has changed meanwhile.
4. After a password change or a removal, revoke the subject's sessions: ``Sessions.revoke_subject``. A login that is
   under way with the old password notices by itself (``Subject``).
"""

from __future__ import annotations

import functools
import time
import unicodedata
from collections.abc import Callable

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from unbroken._sync import run_sync
from unbroken.errors import InvalidRequest
from unbroken.server.stores import Account, SessionStore

__all__ = ["Accounts", "Subject"]

MAX_NAME_CHARS = 128
MAX_PASSWORD_CHARS = 1024


class Subject(str):
    """A subject that knows whether its password is still the one that was checked."""

    is_unchanged: Callable[[], bool]
    """Return whether the account still has the same password hash. Blocks."""

    __slots__ = ("is_unchanged",)


class Accounts:
    """The accounts in *store*. All methods block; ``authenticate`` takes about 50 ms on purpose."""

    def __init__(self, store: SessionStore, hasher: PasswordHasher | None = None) -> None:
        self._store, self._hasher = store, hasher or PasswordHasher()

    def authenticate(self, username: str, password: str) -> str | None:
        """Return the account's name as the subject, or None if the name or the password is wrong."""
        dummy_hash = self._dummy_hash  # made before the lookup, so that the first unknown name takes no longer
        account = self._account(username)
        password_hash = account.password_hash if account else dummy_hash
        if not self._matches(password_hash, password):
            if self._is_outdated(password_hash):  # rule 1: an outdated hash takes another time
                self._matches(dummy_hash, password)
            return None
        if account is None or len(password) > MAX_PASSWORD_CHARS:
            return None
        if self._is_outdated(password_hash):  # rule 3
            newer_hash = self._hasher.hash(password)
            if not run_sync(self._store.change_account(account.name, newer_hash, expected=password_hash)):
                return self.authenticate(username, password)
            password_hash = newer_hash
        return self._subject(account, password_hash)

    def add(self, name: str, password: str) -> None:
        """Create an account. Raises InvalidRequest for a name that exists or is invalid, and for an empty password."""
        _check_name(name)
        account = Account(_folded(name), name, self._hash(password), time.time())
        if not run_sync(self._store.add_account(account)):
            raise InvalidRequest(f"there is a user {name!r} already")

    def set_password(self, name: str, password: str) -> None:
        """Change a password (rule 4). Raises InvalidRequest if there is no such user."""
        self._change(name, self._hash(password))

    def remove(self, name: str) -> None:
        """Remove an account (rule 4). Raises InvalidRequest if there is no such user."""
        self._change(name, None)

    def list(self) -> list[Account]:
        """Return all accounts, sorted by name."""
        return run_sync(self._store.accounts())

    def subject(self, name: str) -> str | None:
        """Return the subject of the account *name*, however it is spelled; None if there is no such account."""
        account = self._account(name)
        return account.shown if account else None

    def _account(self, name: str) -> Account | None:
        """Return the account *name*. An invalid name costs no lookup."""
        return run_sync(self._store.account(_folded(name))) if _is_name(name) else None

    def _change(self, name: str, password_hash: str | None) -> None:
        if not (_is_name(name) and run_sync(self._store.change_account(_folded(name), password_hash))):
            raise InvalidRequest(f"there is no user {name!r}")

    def _subject(self, account: Account, password_hash: str) -> Subject:
        def is_unchanged() -> bool:
            now = run_sync(self._store.account(account.name))
            return now is not None and now.password_hash == password_hash

        subject = Subject(account.shown)
        subject.is_unchanged = is_unchanged
        return subject

    @functools.cached_property
    def _dummy_hash(self) -> str:
        """A hash to compare with where there is no account (rule 1)."""
        return self._hasher.hash("nobody")

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password[: MAX_PASSWORD_CHARS + 1])
        except (VerificationError, InvalidHashError, UnicodeError):
            return False

    def _is_outdated(self, password_hash: str) -> bool:
        try:
            return self._hasher.check_needs_rehash(password_hash)
        except InvalidHashError:
            return True

    def _hash(self, password: str) -> str:
        if not 1 <= len(password) <= MAX_PASSWORD_CHARS:
            raise InvalidRequest(f"a password has 1 to {MAX_PASSWORD_CHARS} characters")
        try:
            return self._hasher.hash(password)
        except UnicodeError:
            raise InvalidRequest("the password is not valid text") from None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _is_name(name: str) -> bool:
    """Return whether an account may have this name. Bounded, because normalizing takes quadratic time."""
    return 1 <= len(name) <= MAX_NAME_CHARS and name.isprintable() and name == name.strip()


def _check_name(name: str) -> None:
    if not _is_name(name):
        raise InvalidRequest(f"a user name has 1 to {MAX_NAME_CHARS} printable characters and no space at its ends")
