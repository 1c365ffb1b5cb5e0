"""The user whom the token of a request names: looked up when somebody asks, and once a request."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from unbroken._sync import in_sync_context
from unbroken.django.runtime import runtime
from unbroken.django.users import mapping_db_errors

__all__ = ["RequestUser", "request_user"]

KEPT = "_unbroken_person"  # on a request


class RequestUser:
    """The user that *subject* names; without one, nobody."""

    def __init__(self, subject: str | None) -> None:
        self.subject = subject
        self._user: Any = None

    def get(self) -> Any:
        """The user; the ``AnonymousUser`` if there is none, or none that is active. Blocks."""
        if self._user is None:
            from django.contrib.auth.models import AnonymousUser  # noqa: PLC0415  # models are there only by then

            user = None if self.subject is None else runtime().users.get(self.subject)
            self._user = user or AnonymousUser()
        return self._user

    async def aget(self) -> Any:
        """``get`` without blocking."""
        return await sync_to_async(self.get)()

    async def is_somebody(self) -> bool:
        """Whether there is such a user. Blocks within ``run_sync``. Raises TryLater."""
        user = (
            mapping_db_errors(self.get)
            if in_sync_context()
            else await sync_to_async(lambda: mapping_db_errors(self.get))()
        )
        return not user.is_anonymous


def request_user(request: HttpRequest, subject: str | None) -> RequestUser:
    """Who *subject* is, for all who ask about *request*."""
    kept: RequestUser | None = getattr(request, KEPT, None)
    if kept is None or kept.subject != subject:
        kept = RequestUser(subject)
        setattr(request, KEPT, kept)
    return kept
