"""The user whom a request's token names: loaded when it is first used, and once a request."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from unbroken._concurrency import in_sync_context
from unbroken.django.runtime import runtime
from unbroken.django.users import mapping_db_errors

__all__ = ["RequestUser", "request_user"]

USER = "_unbroken_user"  # attribute of a request


class RequestUser:
    """The user that *subject* names; without a subject the ``AnonymousUser``."""

    def __init__(self, subject: str | None) -> None:
        self.subject = subject
        self._user: Any = None

    def get(self) -> Any:
        """Return the user; the ``AnonymousUser`` if there is none, or none that is active. Blocks."""
        if self._user is None:
            from django.contrib.auth.models import AnonymousUser  # noqa: PLC0415  # models exist only later

            user = None if self.subject is None else runtime().users.get(self.subject)
            self._user = user or AnonymousUser()
        return self._user

    async def aget(self) -> Any:
        """Return what ``get`` returns, without blocking."""
        return await sync_to_async(self.get)()

    async def exists(self) -> bool:
        """Return whether there is such a user, and it is active. Blocks within ``run_sync``. Raise TryLater."""
        if in_sync_context():
            user = mapping_db_errors(self.get)
        else:
            user = await sync_to_async(lambda: mapping_db_errors(self.get))()
        return not user.is_anonymous


def request_user(request: HttpRequest, subject: str | None) -> RequestUser:
    """Return the user of *subject*, one object for everything that handles *request*."""
    user: RequestUser | None = getattr(request, USER, None)
    if user is None or user.subject != subject:
        user = RequestUser(subject)
        setattr(request, USER, user)
    return user
