"""The security stamp: a text that changes with a subject's password, however it is changed.

It is what ASP.NET calls by that name, and Django a session auth hash.

1. A session keeps the hash of the stamp that its subject had at the login, taken after the password was found right and
   before it is checked once more. A refresh takes the stamp again: if it is another one, the session is over.
2. A login that waits for a code keeps the stamp of its password.
3. A session without a stamp is not checked: the application has created it by itself, or had no stamp for its subject.
   A subject that has no stamp now has none that differs; whether it is still there, ``is_active`` tells.
4. A password that is right and gets a newer hash, as directories do by themselves, is the same password: ``restamp``
   gives its sessions the new stamp.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

from unbroken import _base64
from unbroken.errors import ConfigurationError
from unbroken.server.application import call_application
from unbroken.server.core.session_info import SessionInfo
from unbroken.server.stores import SessionStore
from unbroken.server.worker_pool import STORE_POOL

__all__ = ["SecurityStamp", "SecurityStamps", "restamp"]

SecurityStamp = Callable[[str], str | Awaitable[str | None] | None]
STAMP_BYTES = 16


class SecurityStamps:
    """Takes the stamps of subjects by *security_stamp*, a function of the application; None: there are none."""

    def __init__(self, security_stamp: SecurityStamp | None) -> None:
        self._function = security_stamp

    async def take(self, subject: str) -> str:
        """Return what a new session of *subject* keeps; empty where there is no stamp. Raise TryLater."""
        if self._function is None:
            return ""
        found = await call_application("security_stamp", STORE_POOL, self._function, subject)
        if found is not None and not isinstance(found, str):
            raise ConfigurationError(f"security_stamp must return a text or None, not {type(found).__name__}")
        return stamp_text(found) if found else ""

    async def has_changed(self, subject: str, stamp: str) -> bool:
        """Return whether *subject* has another stamp than at the login, *stamp* (rule 3). Raise TryLater."""
        found = await self.take(subject) if stamp else ""
        return bool(found) and found != stamp

    async def is_over(self, session: SessionInfo) -> bool:
        """Return whether the password has changed since *session* began (rule 1). Raise TryLater."""
        return await self.has_changed(session.subject, session.stamp)


def stamp_text(stamp: str) -> str:
    """Return the hash of *stamp*, as text."""
    return _base64.encode(hashlib.sha256(stamp.encode("utf-8", "surrogatepass")).digest()[:STAMP_BYTES])


async def restamp(store: SessionStore, subject: str, before: str, after: str) -> None:
    """Give the sessions of *subject* that have the stamp *before* the stamp *after* (rule 4)."""
    old, new = (_base64.decode(stamp_text(stamp)) for stamp in (before, after))
    for found in await store.sessions(subject):
        row = found if found.stamp == old and found.revoked_at is None else None
        while row is not None and not await store.compare_and_set(row, replace(row, stamp=new), 0.0):
            row = await store.read(row.key)  # a refresh was quicker
            row = row if row is not None and row.stamp == old and row.revoked_at is None else None
