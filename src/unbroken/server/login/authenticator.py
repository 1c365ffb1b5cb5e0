"""The application's part of a login: whose password it is, whether the code is right.

1. Names, passwords and codes are bounded before anything looks at them: hashing and folding a long text is work that an
   attacker would cause.
2. A plain ``authenticate`` is slow on purpose. It runs in a worker thread, in as many at once as there are cores, with
   a bounded queue. An async one runs in the event loop.
3. A password that is changed while it is being checked does not count: the session that began with it is revoked. A
   ``Subject`` knows whether its password has changed; for any other subject, a revocation of all its sessions during
   the check counts as a change.
4. What ``authenticate`` returns or raises:

       "ada", Identity("ada", label="till 3")   the password is right; the label is for the session
       MfaRequired("ada", kind="totp")          the password is right, and ``verify_mfa`` checks a code next
       None, "", False                          wrong name or password: 401, charged to the rate limit
       raises LoginRefused                      the same, with the application's own message and ``reason``
       raises TryLater                          unknown for now: 503, not charged to the rate limit
       raises anything else                     the directory is broken: 503, logged, not charged to the rate limit
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from unbroken.errors import ConfigurationError, InvalidRequest, LoginRefused
from unbroken.server.application import call_application
from unbroken.server.login.accounts import MAX_PASSWORD_CHARS, Subject
from unbroken.server.worker_pool import LOGIN_POOL, STORE_POOL

__all__ = [
    "Authenticate",
    "Authenticator",
    "Identity",
    "IsActive",
    "MfaRequired",
    "VerifyMfa",
    "subject_is_active",
]


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
IsActive = Callable[[str], bool | Awaitable[bool]]
MAX_USERNAME_CHARS = 320  # the longest mail address
MAX_CODE_CHARS = 1024  # some second factors send a signature


class Authenticator:
    """Calls the application's *authenticate* and *verify_mfa*, each of which may be plain or async."""

    def __init__(self, authenticate: Authenticate, verify_mfa: VerifyMfa | None = None) -> None:
        self._authenticate, self._verify_mfa = authenticate, verify_mfa

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
        if not result:  # rule 4
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

    async def still_authenticates(self, subject: str, name: str, password: str) -> bool:
        """Return whether *password* is still right, now that the session of *subject* exists (rule 3)."""
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
