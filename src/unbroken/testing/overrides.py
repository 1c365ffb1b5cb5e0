"""For tests of a FastAPI application: what takes the place of a dependency on claims, and does not skip scopes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from fastapi import HTTPException
from fastapi.security import SecurityScopes

from unbroken._arguments import checked
from unbroken.server.http.authentication import require_scope
from unbroken.server.keys.access_token import Claims

__all__ = ["logged_in_as"]

LIFETIME_SECONDS = 1800.0


@checked()
def logged_in_as(
    subject: str, *, scope: str = "", extra: dict[str, object] | None = None
) -> Callable[..., Awaitable[Claims]]:
    """Return a dependency for ``app.dependency_overrides[auth.claims]``: each request is one of *subject*.

    A route that needs more than *scope* refuses the request with 403, as it does in production. *extra*: the
    application's own claims.
    """

    async def claims(scopes: SecurityScopes) -> Claims:
        now = time.time()
        given = Claims(
            subject, "test", "test", scope, "test", "test", now, now + LIFETIME_SECONDS, "test", extra=extra or {}
        )
        found = require_scope(given, scopes.scope_str)
        if isinstance(found, Claims):
            return found
        raise HTTPException(found.status, "insufficient_scope", {"www-authenticate": found.headers["www-authenticate"]})

    return claims
