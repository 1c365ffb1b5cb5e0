"""The embedded account table: names and argon2id hashes (RFC 9106), for servers that have no users of their own.

1. A wrong name and a wrong password take the same time and get the same response. The time is that of one hash for each
   set of parameters that hashes in the table have: where some are outdated, every login costs one hash more.
2. Names are compared after NFKC and case folding. No new name looks like another one (``names.py``).
3. A hash with outdated parameters is replaced at the next login, unless the account has changed meanwhile. The new hash
   takes the place of one that rule 1 asks for.
4. A password change and a removal revoke the sessions of the account, and forget its devices. A login that is under way
   with the old password notices by itself (``Subject``).
5. A subject belongs to one account for ever. The subject of a name that is given for the first time is the name; when
   it is given again, after the account was removed, a ``#`` and random characters follow. So a row of the application
   that belongs to a removed user does not belong to the next one. Of a removed account the hash of its name is kept.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import astuple
from typing import Any

from argon2 import Parameters, PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

from unbroken._arguments import checked_class
from unbroken._concurrency import run_sync
from unbroken.errors import InvalidRequest
from unbroken.server.grants.rights import SCOPE_WORD
from unbroken.server.login.machine_slots import HASH_SLOTS
from unbroken.server.login.names import check_new_name, folded_name, is_name, looks_like
from unbroken.server.session_admin import end_sessions
from unbroken.server.sessions import Sessions
from unbroken.server.stores import Account, SessionStore

__all__ = ["Accounts", "Subject"]

ParameterSet = tuple[Any, ...]  # the fields of argon2's ``Parameters``, which cannot be keys themselves
MAX_PASSWORD_CHARS = 1024
MAX_PARAMETER_SETS = 4  # that every login pays for; an account with others can be told apart
PARAMETERS_FRESH_SECONDS = 3600.0  # how long the parameters in the table are remembered
SUFFIX_BYTES = 8
REMOVED_PREFIX = " removed "  # of names in the table: no account's name begins with a space


class Subject(str):
    """A subject that knows whether its password is still the one that was checked."""

    is_unchanged: Callable[[], bool]
    """Return whether the account still has the same password hash. Blocks."""

    __slots__ = ("is_unchanged",)


@checked_class("authenticate", "is_active", "add", "set_password", "set_scopes", "scopes_of", "remove", "subject")
class Accounts:
    """The accounts in the store of *sessions*. All methods block; ``authenticate`` takes about 50 ms on purpose.

    Instead of a ``Sessions``, its store will do: then listeners hear nothing of the sessions that end with a password
    or an account, and this process refuses their access tokens a second later.
    """

    def __init__(self, sessions: Sessions | SessionStore, hasher: PasswordHasher | None = None) -> None:
        self._sessions = sessions if isinstance(sessions, Sessions) else None
        self._store = sessions.store if isinstance(sessions, Sessions) else sessions
        self._hasher = hasher or PasswordHasher()
        self._dummies: dict[ParameterSet, str] = {}  # a hash of no account for each set of parameters (rule 1)
        self._dummies_until = float("-inf")  # on the monotonic clock
        self._own_dummy = ""  # no ``cached_property``: before Python 3.12 its lock could be held by a forked parent

    def authenticate(self, username: str, password: str) -> str | None:
        """Return the subject of the account, or None if the name or the password is wrong."""
        dummies = self._current_dummies()  # before the lookup, so that the first unknown name takes no longer
        account = self._account(username)
        with HASH_SLOTS.slot():
            is_right, newer_hash = self._check(account.password_hash if account else "", password, dummies)
        if account is None or not is_right or len(password) > MAX_PASSWORD_CHARS:
            return None
        if newer_hash and not run_sync(
            self._store.change_account(account.name, newer_hash, expected=account.password_hash)
        ):
            return self.authenticate(username, password)
        return self._subject(account, newer_hash or account.password_hash)

    def is_active(self, subject: str) -> bool:
        """Return whether *subject* is that of an account, for the setting ``is_active``."""
        return self._account_of(subject) is not None

    def scopes_of(self, subject: str) -> list[str]:
        """Return the words of scope that the account of *subject* may have now, for the setting ``scopes_of``."""
        account = self._account_of(subject)
        return account.scope.split() if account else []

    def set_scopes(self, name: str, scopes: Collection[str]) -> None:
        """Set the words of scope that an account may have. Its tokens follow with their next refresh.

        Raise InvalidRequest if there is no such user, or for what is no word of scope.
        """
        words = list(dict.fromkeys(scopes))
        if wrong := [word for word in words if not SCOPE_WORD.fullmatch(word)]:
            raise InvalidRequest(f"{wrong[0]!r} is no word of scope: use printable ASCII, without spaces and quotes")
        account = self._require(name)
        while not run_sync(
            self._store.change_account(
                account.name, account.password_hash, expected=account.password_hash, scope=" ".join(words)
            )
        ):  # the password has changed meanwhile
            account = self._require(name)

    def add(self, name: str, password: str) -> None:
        """Create an account.

        Raise InvalidRequest for a name that exists, looks like one that exists, or is invalid (``names.py``), and for
        a password that is empty or too long.
        """
        check_new_name(name)
        self._check_twins(name)
        was_removed = run_sync(self._store.account(_removed_name(name))) is not None
        subject = f"{name}#{secrets.token_hex(SUFFIX_BYTES)}" if was_removed or "#" in name else name  # rule 5
        account = Account(folded_name(name), name, self._hash(password), time.time(), subject)
        if not run_sync(self._store.add_account(account)):
            raise InvalidRequest(f"there is a user {name!r} already")
        try:
            self._check_twins(name)  # another process may have added one meanwhile
        except InvalidRequest:
            run_sync(self._store.change_account(account.name, None))
            raise

    def set_password(self, name: str, password: str, *, keep: str | None = None) -> int:
        """Change a password and revoke the account's sessions, but not *keep*, a session id; return how many.

        Raise InvalidRequest if there is no such user.
        """
        account, new_hash = self._require(name), self._hash(password)
        if not run_sync(self._store.change_account(account.name, new_hash)):
            raise _no_user(name)
        return self._revoke(account, keep)  # rule 4

    def remove(self, name: str) -> int:
        """Remove an account and revoke its sessions; return how many.

        Raise InvalidRequest if there is no such user.
        """
        account = self._require(name)
        run_sync(self._store.add_account(Account(_removed_name(account.shown), "", "", time.time())))  # rule 5
        revoked = self._revoke(account)  # first, so that who is told of an error can remove the account once more
        if not run_sync(self._store.change_account(account.name, None)):
            raise _no_user(name)
        return revoked + self._revoke(account)  # of a login that was under way

    def list(self) -> list[Account]:
        """Return all accounts, sorted by name."""
        return [account for account in run_sync(self._store.accounts()) if account.password_hash]

    def subject(self, name: str) -> str | None:
        """Return the subject of the account *name*, however it is spelled; None if there is no such account."""
        account = self._account(name)
        return subject_of(account) if account else None

    def _account(self, name: str) -> Account | None:
        """Return the account *name*. An invalid name costs no lookup."""
        return run_sync(self._store.account(folded_name(name))) if is_name(name) else None

    def _account_of(self, subject: str) -> Account | None:
        """Return the account of *subject*."""
        account = self._account(subject.rpartition("#")[0]) if "#" in subject else None
        account = account if account and subject_of(account) == subject else self._account(subject)
        return account if account is not None and subject_of(account) == subject else None

    def _require(self, name: str) -> Account:
        account = self._account(name)
        if account is None:
            raise _no_user(name)
        return account

    def _check_twins(self, name: str) -> None:
        """Raise InvalidRequest if another account's name looks like *name* (rule 2)."""
        for account in self.list():
            if account.name == folded_name(name):
                continue
            if looks_like(account.shown, name):
                raise InvalidRequest(f"{name!r} looks like the user {account.shown!r}")

    def _revoke(self, account: Account, keep: str | None = None) -> int:
        subject = subject_of(account)
        if self._sessions is not None:
            return self._sessions.revoke_subject(subject, keep=keep)
        return run_sync(end_sessions(self._store, subject, time.time(), keep))

    def _subject(self, account: Account, password_hash: str) -> Subject:
        def is_unchanged() -> bool:
            now = run_sync(self._store.account(account.name))
            return now is not None and now.password_hash == password_hash and subject_of(now) == subject_of(account)

        subject = Subject(subject_of(account))
        subject.is_unchanged = is_unchanged
        return subject

    # ---- hashes --------------------------------------------------------------------------------------------------

    def _check(self, password_hash: str, password: str, dummies: dict[ParameterSet, str]) -> tuple[bool, str]:
        """Return whether *password* is right, and a newer hash of it where one is needed (rule 3).

        Computes one hash for each set of parameters in *dummies*, whatever the name and the password are (rule 1).
        """
        parameters = _parameters_of(password_hash)
        if parameters is not None and parameters not in dummies and len(dummies) < MAX_PARAMETER_SETS:
            self._dummies = {**dummies, parameters: _dummy(parameters)}  # from now on: the table was read before
        is_right = parameters is not None and self._matches(password_hash, password)
        newer_hash = ""
        for other, dummy in dummies.items():
            if other == parameters:
                continue
            if is_right and other == self._todays:
                newer_hash = self._hasher.hash(password)
            else:
                self._matches(dummy, password)
        return is_right, newer_hash

    def _current_dummies(self) -> dict[ParameterSet, str]:
        """Return a hash for today's parameters, and for each set of others that the table has."""
        if time.monotonic() > self._dummies_until:
            found = Counter(map(_parameters_of, (account.password_hash for account in self.list())))
            others = [one for one, _ in found.most_common() if one and one != self._todays]
            others = others[: MAX_PARAMETER_SETS - 1]
            self._dummies = {self._todays: self._todays_dummy} | {one: _dummy(one) for one in others}
            self._dummies_until = time.monotonic() + PARAMETERS_FRESH_SECONDS
        return self._dummies

    @property
    def _todays_dummy(self) -> str:
        self._own_dummy = self._own_dummy or self._hasher.hash("no account")
        return self._own_dummy

    @property
    def _todays(self) -> ParameterSet:
        """The parameters of new hashes."""
        return _parameters_of(self._todays_dummy) or ()

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password[: MAX_PASSWORD_CHARS + 1])
        except (VerificationError, InvalidHashError, UnicodeError):
            return False

    def _hash(self, password: str) -> str:
        if not 1 <= len(password) <= MAX_PASSWORD_CHARS:
            raise InvalidRequest(f"a password has 1 to {MAX_PASSWORD_CHARS} characters")
        try:
            with HASH_SLOTS.slot():
                return self._hasher.hash(password)
        except UnicodeError:
            raise InvalidRequest("the password is not valid text") from None


def subject_of(account: Account) -> str:
    """Return the subject of *account* (rule 5)."""
    return account.subject or account.shown


def _removed_name(name: str) -> str:
    """Return the name in the table that says that an account called *name* was removed (rule 5)."""
    return REMOVED_PREFIX + hashlib.sha256(folded_name(name).encode("utf-8", "replace")).hexdigest()


@functools.lru_cache(maxsize=64)
def _dummy(parameters: ParameterSet) -> str:
    """Return a hash with these parameters that belongs to no account."""
    return PasswordHasher.from_parameters(Parameters(*parameters)).hash("no account")


def _no_user(name: str) -> InvalidRequest:
    return InvalidRequest(f"there is no user {name!r}")


@functools.lru_cache(maxsize=1024)
def _parameters_of(password_hash: str) -> ParameterSet | None:
    """Return the parameters of a hash; None for a text that is no hash."""
    try:
        return astuple(extract_parameters(password_hash))
    except InvalidHashError:
        return None
