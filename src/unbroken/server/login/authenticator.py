"""The application's part of a login: whose password it is, whether the code is right, which scope the subject may have.

1. Names, passwords and codes are bounded before anything looks at them: hashing and folding a long text is work that an
   attacker would cause.
2. A plain ``authenticate`` is slow on purpose. It runs in a worker thread, in as many at once as there are cores, with
   a bounded queue. An async one runs in the event loop.
3. A login may ask for the scope that ``scopes_of`` returns for its subject, and for no other. It is asked again
   whenever tokens are issued: at the MFA step, at each refresh of a session with a scope, and for a ticket.
4. A password that is changed while it is being checked does not count: the session that began with it is revoked. A
   ``Subject`` knows whether its password has changed; for any other subject, a revocation of all its sessions during
   the check counts as a change.
5. What ``authenticate`` returns or raises:

       "ada", Identity("ada", label="till 3")   the password is right; the label is for the session
       MfaRequired("ada", kind="totp")          the password is right, and ``verify_mfa`` checks a code next
       None, "", False                          wrong name or password: 401, charged to the rate limit
       raises LoginRefused                      the same, with the application's own message and ``reason``
       raises TryLater                          unknown for now: 503, not charged to the rate limit
       raises anything else                     the directory is broken: 503, logged, not charged to the rate limit
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from unbroken.errors import ConfigurationError, InvalidRequest, InvalidScope, LoginRefused, Refused, TryLater
from unbroken.server.login.accounts import MAX_PASSWORD_CHARS, Subject
from unbroken.server.worker_pool import LOGIN_POOL, STORE_POOL, WorkerPool

__all__ = [
    "Authenticate",
    "Authenticator",
    "Identity",
    "IsActive",
    "MfaRequired",
    "ScopesOf",
    "VerifyMfa",
    "call_application",
    "subject_is_active",
]

_log = logging.getLogger("unbroken")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who has logged in. *label* names the session where the client gives no name."""

    subject: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class MfaRequired:
    """The password of *subject* is right, and a code is required. *kind* and *hint* tell the client which code."""

    subject: str
    kind: str = "totp"
    hint: str = ""
    label: str = ""


AuthenticationResult = str | Identity | MfaRequired | None
Authenticate = Callable[[str, str], AuthenticationResult | Awaitable[AuthenticationResult]]
VerifyMfa = Callable[[str, str, str], bool | Awaitable[bool]]
ScopesOf = Callable[[str], Collection[str] | Awaitable[Collection[str]]]
IsActive = Callable[[str], bool | Awaitable[bool]]
MAX_USERNAME_CHARS = 320  # the longest mail address
MAX_CODE_CHARS = 1024  # some second factors send a signature
APPLICATION_RETRY_SECONDS = 5.0


class Authenticator:
    """Calls the application's *authenticate*, *verify_mfa* and *scopes_of*, each of which may be plain or async."""

    def __init__(
        self, authenticate: Authenticate, scopes_of: ScopesOf | None, verify_mfa: VerifyMfa | None = None
    ) -> None:
        self._authenticate, self._scopes_of, self._verify_mfa = authenticate, scopes_of, verify_mfa

    @property
    def has_mfa(self) -> bool:
        """Return whether codes can be checked."""
        return self._verify_mfa is not None

    @staticmethod
    def check_length(name: str, password: str) -> None:
        """Raise InvalidRequest for a name or a password that is too long (rule 1)."""
        if len(name) > MAX_USERNAME_CHARS or len(password) > MAX_PASSWORD_CHARS:
            limits = f"username has at most {MAX_USERNAME_CHARS} characters, password {MAX_PASSWORD_CHARS}"
            raise InvalidRequest(limits)

    async def authenticate(self, name: str, password: str) -> Identity | MfaRequired:
        """Return who has this name and password. Raise LoginRefused, InvalidRequest, or TryLater."""
        self.check_length(name, password)
        result = await call_application("authenticate", LOGIN_POOL, self._authenticate, name, password)  # rule 2
        if not result:  # rule 5
            raise LoginRefused("wrong user name or password")
        identity = result if isinstance(result, Identity | MfaRequired) else Identity(result)
        _check_texts(identity)
        if isinstance(identity, MfaRequired) and self._verify_mfa is None:
            raise ConfigurationError("authenticate returns MfaRequired: set verify_mfa, which checks the code")
        return identity

    async def check_code(self, subject: str, kind: str, code: str) -> None:
        """Raise LoginRefused for a wrong *code*; InvalidRequest for one that is too long; or TryLater."""
        if len(code) > MAX_CODE_CHARS:
            raise InvalidRequest(f"code has at most {MAX_CODE_CHARS} characters")
        if self._verify_mfa is None or not await call_application(
            "verify_mfa", LOGIN_POOL, self._verify_mfa, subject, kind, code
        ):
            raise LoginRefused("wrong code", reason="code")

    async def check_scope(self, subject: str, scope: str) -> None:
        """Raise InvalidScope unless *subject* may have all of *scope* (rule 3)."""
        if (requested := set(scope.split())) and not requested <= await self._scopes_now(subject):
            raise InvalidScope("this user may not have all of the requested scope")

    async def remaining_scope(self, subject: str, scope: str) -> str:
        """Return the part of *scope*, which *subject* once got, that it may still have (rule 3).

        All of it where no ``scopes_of`` says otherwise: then the application creates the sessions itself.
        """
        if self._scopes_of is None or not scope:
            return scope
        allowed = await self._scopes_now(subject)
        return " ".join(word for word in scope.split() if word in allowed)

    async def _scopes_now(self, subject: str) -> set[str]:
        if self._scopes_of is None:
            return set()
        found = await call_application("scopes_of", STORE_POOL, self._scopes_of, subject)
        if isinstance(found, str) or not isinstance(found, Iterable):
            raise ConfigurationError("scopes_of must return a list of words, such as ['read', 'write']")
        return set(found)

    async def still_authenticates(self, subject: str, name: str, password: str) -> bool:
        """Return whether *password* is still right, now that the session of *subject* exists (rule 4)."""
        if not isinstance(subject, Subject) or await STORE_POOL.run(subject.is_unchanged):
            return True
        try:  # the same password may have got a newer hash
            return (await self.authenticate(name, password)).subject == subject
        except LoginRefused:
            return False


async def subject_is_active(is_active: IsActive, subject: str) -> bool:
    """Return whether the application still knows *subject*. Raise TryLater.

    Raise ConfigurationError for a result that is not a bool: a function that forgets to return one must not log
    everybody out.
    """
    result = await call_application("is_active", STORE_POOL, is_active, subject)
    if not isinstance(result, bool):
        raise ConfigurationError(f"is_active must return True or False, not {type(result).__name__}")
    return result


def _check_texts(identity: Identity | MfaRequired) -> None:
    """Raise ConfigurationError for what does not fit into a token: a number, a lone surrogate, an empty subject."""
    mfa = (identity.kind, identity.hint) if isinstance(identity, MfaRequired) else ()
    texts = (identity.subject, identity.label, *mfa)
    are_texts = all(isinstance(text, str) for text in texts)
    if not are_texts or not identity.subject or any("\ud800" <= char <= "\udfff" for char in "".join(texts)):
        raise ConfigurationError("authenticate must return a non-empty subject; subject, label, kind and hint are str")


async def call_application(what: str, pool: WorkerPool, function: Callable[..., Any], *args: str) -> Any:
    """Return what the application's *function* returns. Raise TryLater for its own errors: they prove nothing."""
    try:
        return await pool.call(function, *args)
    except (Refused, TryLater, ConfigurationError):
        raise
    except Exception as error:
        _log.exception("%s raised an error; the client is told to try again", what)
        raise TryLater(f"{what} failed", retry_after=APPLICATION_RETRY_SECONDS) from error
