"""The embedded account table: names and argon2id hashes (RFC 9106), for servers that have no users of their own.

1. A wrong name and a wrong password cost the same time and get the same answer.
2. Names are compared after NFKC and case folding, so that two accounts cannot look alike.
3. A hash made with older parameters is replaced at the next login, unless somebody has changed it meanwhile.
4. Whoever changes a password or removes an account ends its sessions: ``Sessions.revoke_subject``. A login that is under
   way with the old password finds out by itself (``Subject``).
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
    """The subject of an account whose password was right."""

    is_unchanged: Callable[[], bool]
    """Whether the account has the hash still that the password was right for. Blocks."""

    __slots__ = ("is_unchanged",)


class Accounts:
    """The accounts in *store*. The methods block; ``authenticate`` takes some 50 ms on purpose."""

    def __init__(self, store: SessionStore, hasher: PasswordHasher | None = None) -> None:
        self._store, self._hasher = store, hasher or PasswordHasher()

    def authenticate(self, username: str, password: str) -> str | None:
        """The subject of this account, which is its name; None if name or password is wrong."""
        nobody = self._nobody  # made before any name is looked up, so that the first unknown one takes no longer
        account = self._account(username)
        hashed = account.password_hash if account else nobody
        if not self._matches(hashed, password):
            if self._is_old(hashed):
                self._matches(nobody, password)  # an older hash takes another time, and would tell that there is one
            return None
        if account is None or len(password) > MAX_PASSWORD_CHARS:
            return None
        if self._is_old(hashed):
            newer = self._hasher.hash(password)
            if not run_sync(self._store.change_account(account.name, newer, expected=hashed)):
                return self.authenticate(username, password)  # the account was changed meanwhile
            hashed = newer
        return self._proven(account, hashed)

    def add(self, name: str, password: str) -> None:
        """Makes an account. Raises InvalidRequest for a name that is taken or odd, and for an empty password."""
        _check_name(name)
        account = Account(_folded(name), name, self._hash(password), time.time())
        if not run_sync(self._store.add_account(account)):
            raise InvalidRequest(f"there is a user {name!r} already")

    def set_password(self, name: str, password: str) -> None:
        """Changes a password; end the subject's sessions afterwards. Raises InvalidRequest if there is no such user."""
        self._change(name, self._hash(password))

    def remove(self, name: str) -> None:
        """Removes an account; end its sessions afterwards. Raises InvalidRequest if there is no such user."""
        self._change(name, None)

    def list(self) -> list[Account]:
        """All accounts, by name."""
        return run_sync(self._store.accounts())

    def subject(self, name: str) -> str | None:
        """The subject of the account with this name, in any spelling; None if there is none."""
        account = self._account(name)
        return account.shown if account else None

    def _account(self, name: str) -> Account | None:
        """The account with this name; None also for what can be no name, before it costs anything."""
        return run_sync(self._store.account(_folded(name))) if _is_name(name) else None

    def _change(self, name: str, password_hash: str | None) -> None:
        if not (_is_name(name) and run_sync(self._store.change_account(_folded(name), password_hash))):
            raise InvalidRequest(f"there is no user {name!r}")

    def _proven(self, account: Account, hashed: str) -> Subject:
        def is_unchanged() -> bool:
            found = run_sync(self._store.account(account.name))
            return found is not None and found.password_hash == hashed

        subject = Subject(account.shown)
        subject.is_unchanged = is_unchanged
        return subject

    @functools.cached_property
    def _nobody(self) -> str:
        """A hash to compare with when there is no account, so that this takes as long."""
        return self._hasher.hash("nobody")

    def _matches(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password[: MAX_PASSWORD_CHARS + 1])
        except (VerificationError, InvalidHashError, UnicodeError):
            return False

    def _is_old(self, hashed: str) -> bool:
        try:
            return self._hasher.check_needs_rehash(hashed)
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
    """Whether an account can have this name: normalising a long text takes a time that grows with its square."""
    return 1 <= len(name) <= MAX_NAME_CHARS and name.isprintable() and name == name.strip()


def _check_name(name: str) -> None:
    if not _is_name(name):
        raise InvalidRequest(f"a user name has 1 to {MAX_NAME_CHARS} printable characters and no space at its ends")
