"""The user whom the token of a request names: looked up when somebody asks, and once a request."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from unbroken._sync import is_blocking
from unbroken.django.runtime import site
from unbroken.django.users import reached

__all__ = ["Person", "person_of"]

KEPT = "_unbroken_person"  # on a request


class Person:
    """The user that *subject* names; without one, nobody."""

    def __init__(self, subject: str | None) -> None:
        self.subject = subject
        self._user: Any = None

    def get(self) -> Any:
        """The user; the ``AnonymousUser`` if there is none, or none that is active. Blocks."""
        if self._user is None:
            from django.contrib.auth.models import AnonymousUser  # noqa: PLC0415  # models are there only by then

            user = None if self.subject is None else site().users.get(self.subject)
            self._user = user or AnonymousUser()
        return self._user

    async def aget(self) -> Any:
        """``get`` without blocking."""
        return await sync_to_async(self.get)()

    async def is_somebody(self) -> bool:
        """Whether there is such a user. Blocks within ``run_once``. Raises TryLater."""
        user = reached(self.get) if is_blocking() else await sync_to_async(lambda: reached(self.get))()
        return not user.is_anonymous


def person_of(request: HttpRequest, subject: str | None) -> Person:
    """Who *subject* is, for all who ask about *request*."""
    kept: Person | None = getattr(request, KEPT, None)
    if kept is None or kept.subject != subject:
        kept = Person(subject)
        setattr(request, KEPT, kept)
    return kept
