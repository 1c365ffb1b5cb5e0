"""Who may log in: the application is asked for the subject, for its second step, and for the scope it may have. And
whether the subject is somebody still, when a session goes on.

1. Names and passwords are bounded before anybody looks at them: to hash or to fold a long text is work for an attacker.
2. A plain ``authenticate`` is slow on purpose and runs in a thread: as many at once as there are cores, and no endless
   queue behind them. An async one is the application's own affair.
3. Nobody gets a scope by asking for it: a login may ask for what ``scopes_of`` gives its subject, and for nothing else.
4. A password that was changed while it was checked is not good: the session that began by it is ended again. A
   ``Subject`` can be asked; of any other it counts whether all its sessions were ended while the password was checked.
5. What the application answers, and what it raises, means:

       "ada", Identity("ada", label="till 3")   the password was right; the label is the session's, if it has none
       MfaRequired("ada", kind="totp")          it was right, and ``second_step`` is asked for a code next
       None, "", False                          wrong name or password: 401, and one more for the guard
       raises LoginRefused                      the same, in the application's words, with its ``reason``
       raises TryLater                          nobody can say now: 503, the guard forgets the try
       raises anything else                     the directory is out of order: 503, logged, the guard forgets the try
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from unbroken.errors import ConfigurationError, InvalidRequest, InvalidScope, LoginRefused, Refused, TryLater
from unbroken.server.login.accounts import Subject
from unbroken.server.worker_pool import LOGIN_POOL, STORE_POOL, WorkerPool

__all__ = [
    "Authenticate",
    "Authenticator",
    "Identity",
    "IsActive",
    "MfaRequired",
    "ScopesOf",
    "VerifyMfa",
    "is_somebody",
]

_log = logging.getLogger("unbroken")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who has logged in; *label* is for the session, where the client names none."""

    subject: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class MfaRequired:
    """The password was right, and more is wanted of *subject*: *kind* and *hint* tell the client what to ask for."""

    subject: str
    kind: str = "totp"
    hint: str = ""
    label: str = ""


AuthenticationResult = str | Identity | MfaRequired | None
Authenticate = Callable[[str, str], AuthenticationResult | Awaitable[AuthenticationResult]]
VerifyMfa = Callable[[str, str, str], bool | Awaitable[bool]]
ScopesOf = Callable[[str], Collection[str] | Awaitable[Collection[str]]]
IsActive = Callable[[str], bool | Awaitable[bool]]
MAX_USERNAME_CHARS = 320  # characters: the longest mail address
MAX_PASSWORD_CHARS = 1024
MAX_CODE_CHARS = 1024  # some second factors sign


class Authenticator:
    """Asks *authenticate*, *second_step* and *scopes_of*, which may be plain or async."""

    def __init__(
        self, authenticate: Authenticate, scopes_of: ScopesOf | None, second_step: VerifyMfa | None = None
    ) -> None:
        self._authenticate, self._scopes_of, self._second_step = authenticate, scopes_of, second_step

    @property
    def has_mfa(self) -> bool:
        """Whether codes can be checked."""
        return self._second_step is not None

    @staticmethod
    def check_length(name: str, password: str) -> None:
        """Raises InvalidRequest for a text that nobody should look at."""
        if len(name) > MAX_USERNAME_CHARS or len(password) > MAX_PASSWORD_CHARS:
            raise InvalidRequest(f"a name has at most {MAX_USERNAME_CHARS} characters, a password {MAX_PASSWORD_CHARS}")

    async def authenticate(self, name: str, password: str) -> Identity | MfaRequired:
        """Who has this name and password. Raises LoginRefused, InvalidRequest, or TryLater."""
        self.check_length(name, password)
        answer = await _call_application("authenticate", LOGIN_POOL, self._authenticate, name, password)
        if not answer:
            raise LoginRefused("wrong user name or password")
        who = answer if isinstance(answer, Identity | MfaRequired) else Identity(answer)
        _check_texts(who)
        if isinstance(who, MfaRequired) and self._second_step is None:
            raise ConfigurationError("authenticate wants one more step: give the endpoints second_step, to check codes")
        return who

    async def check_code(self, subject: str, kind: str, code: str) -> bool:
        """True. Raises LoginRefused if *code* is wrong, InvalidRequest, or TryLater."""
        if len(code) > MAX_CODE_CHARS:
            raise InvalidRequest(f"a code has at most {MAX_CODE_CHARS} characters")
        if self._second_step is None or not await _call_application(
            "second_step", LOGIN_POOL, self._second_step, subject, kind, code
        ):
            raise LoginRefused("wrong code", reason="code")
        return True

    async def check_scope(self, subject: str, scope: str) -> None:
        """Raises InvalidScope if *subject* may not have all of *scope*."""
        if wanted := set(scope.split()):
            allowed = (
                await _call_application("scopes_of", STORE_POOL, self._scopes_of, subject) if self._scopes_of else ()
            )
            if not wanted <= set(allowed):
                raise InvalidScope("this user may not have all of the scope that was asked for")

    async def still_authenticates(self, subject: str, name: str, password: str) -> bool:
        """Whether *subject* still has this password, now that its session has begun."""
        if not isinstance(subject, Subject) or await STORE_POOL.run(subject.is_unchanged):
            return True
        try:  # it may be the same password under a newer hash
            return (await self.authenticate(name, password)).subject == subject
        except LoginRefused:
            return False


async def is_somebody(is_active: IsActive, subject: str) -> bool:
    """Whether the application still knows *subject*. Raises TryLater, and ConfigurationError for an answer that is
    neither True nor False: a function that forgets to answer must not log everybody out.
    """
    answer = await _call_application("is_active", STORE_POOL, is_active, subject)
    if not isinstance(answer, bool):
        raise ConfigurationError(f"is_active gives True or False, not {type(answer).__name__}")
    return answer


def _check_texts(who: Identity | MfaRequired) -> None:
    """Raises ConfigurationError for what fits into no token: a number, a lone surrogate, no subject at all."""
    texts = (who.subject, who.label, *((who.kind, who.hint) if isinstance(who, MfaRequired) else ()))
    are_texts = all(isinstance(text, str) for text in texts)
    if not are_texts or not who.subject or any("\ud800" <= char <= "\udfff" for char in "".join(texts)):
        raise ConfigurationError(
            "authenticate gives a subject that is not empty; it, a label, a kind and a hint are texts"
        )


async def _call_application(what: str, lane: WorkerPool, function: Callable[..., Any], *args: str) -> Any:
    """What the application's *function* answers. Raises TryLater for every error of its own: it proves nothing."""
    try:
        return await lane.call(function, *args)
    except (Refused, TryLater, ConfigurationError):
        raise
    except Exception as error:
        _log.exception("%s failed: whoever needs it is told to try again", what)
        raise TryLater(f"{what} failed", retry_after=5.0) from error
