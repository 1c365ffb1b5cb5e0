"""Who a token belongs to, as one of Django's own authentication backends: for code that asks ``django.contrib.auth``.

    AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "unbroken.django.backends.TokenBackend"]

    user = django.contrib.auth.authenticate(request, token=access_token)

Neither the middleware nor ``session_required`` needs it.
"""

from __future__ import annotations

from typing import Any

from django.contrib import auth
from django.contrib.auth.backends import BaseBackend
from django.http import HttpRequest

from unbroken._sync import run_sync
from unbroken.django.runtime import runtime
from unbroken.errors import InvalidToken

__all__ = ["TokenBackend"]


class TokenBackend(BaseBackend):
    """Users by their access tokens. It gives no permissions."""

    def authenticate(  # what is not for tokens comes here too, and is for others
        self,
        request: HttpRequest | None,  # noqa: ARG002  # the base's name
        token: str | None = None,
        **_: Any,
    ) -> Any:
        """The user of a good access *token*; None for any other, and for a user that is gone or inactive. Blocks.
        Raises TryLater where nobody can say.
        """
        if not token:
            return None
        try:
            return runtime().users.get(run_sync(runtime().verifies.averify(token)).subject)
        except InvalidToken:
            return None

    def get_user(self, user_id: Any) -> Any:
        """The active user with this primary key, which Django keeps in a session of its own; None if there is none."""
        user: Any = auth.get_user_model()._default_manager.filter(pk=user_id).first()
        return user if user is not None and user.is_active else None
