"""Who may log in: the application is asked for the subject, and for the scope it may have.

1. Names and passwords are bounded before anybody looks at them: to hash or to fold a long text is work for an attacker.
2. A plain ``authenticate`` is slow on purpose and runs in a thread: as many at once as there are cores, and no endless
   queue behind them. An async one is the application's own affair.
3. Nobody gets a scope by asking for it: a login may ask for what ``scopes_of`` gives its subject, and for nothing else.
4. A password that was changed while it was checked is not good: the session that began by it is ended again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from unbroken.errors import InvalidRequest, InvalidScope, LoginRefused
from unbroken.server.accounts import Subject
from unbroken.server.threads import LOGINS, STORE

__all__ = ["Authenticate", "Logins", "ScopesOf"]

Authenticate = Callable[[str, str], "str | Awaitable[str | None] | None"]
ScopesOf = Callable[[str], "Collection[str] | Awaitable[Collection[str]]"]
LONGEST_NAME = 320  # characters: the longest mail address
LONGEST_PASSWORD = 1024


class Logins:
    """Asks *authenticate* and *scopes_of*, which may be plain or async."""

    def __init__(self, authenticate: Authenticate, scopes_of: ScopesOf | None) -> None:
        self._authenticate, self._scopes_of = authenticate, scopes_of

    async def subject(self, name: str, password: str) -> str:
        """The subject with this name and password. Raises LoginRefused, InvalidRequest, or TryLater."""
        if len(name) > LONGEST_NAME or len(password) > LONGEST_PASSWORD:
            raise InvalidRequest(f"a name has at most {LONGEST_NAME} characters, a password {LONGEST_PASSWORD}")
        subject = await LOGINS.ask(self._authenticate, name, password)
        if not subject:
            raise LoginRefused("wrong user name or password")
        return subject

    async def check_scope(self, subject: str, scope: str) -> None:
        """Raises InvalidScope if *subject* may not have all of *scope*."""
        if wanted := set(scope.split()):
            allowed = await STORE.ask(self._scopes_of, subject) if self._scopes_of else ()
            if not wanted <= set(allowed):
                raise InvalidScope("this user may not have all of the scope that was asked for")

    async def is_still(self, subject: str, name: str, password: str) -> bool:
        """Whether *subject* still has this password, now that its session has begun."""
        if not isinstance(subject, Subject) or await STORE.run(subject.is_unchanged):
            return True
        try:  # it may be the same password under a newer hash
            return await self.subject(name, password) == subject
        except LoginRefused:
            return False
