"""The user of an access token, by one of Django's authentication backends: for ``django.contrib.auth.authenticate``.

    AUTHENTICATION_BACKENDS = [
        "django.contrib.auth.backends.ModelBackend", "unbroken.django.backends.AccessTokenBackend",
    ]

    user = django.contrib.auth.authenticate(request, token=access_token)

The middleware and ``access_token_required`` do not need it.
"""

from __future__ import annotations

from typing import Any

from django.contrib import auth
from django.contrib.auth.backends import BaseBackend
from django.http import HttpRequest

from unbroken._sync import run_sync
from unbroken.django.runtime import runtime
from unbroken.errors import InvalidToken

__all__ = ["AccessTokenBackend"]


class AccessTokenBackend(BaseBackend):
    """Authenticates users by their access tokens. Grants no permissions."""

    def authenticate(
        self,
        request: HttpRequest | None,  # noqa: ARG002  # the base's name
        token: str | None = None,
        **_: Any,  # credentials of other backends
    ) -> Any:
        """Return the user of a good access *token*, or None. Blocks. Raises TryLater if it cannot be verified now."""
        if not token:
            return None
        try:
            return runtime().users.get(run_sync(runtime().verifier.averify(token)).subject)
        except InvalidToken:
            return None

    def get_user(self, user_id: Any) -> Any:
        """Return the active user with this primary key, which Django keeps in ``request.session``; or None."""
        user: Any = auth.get_user_model()._default_manager.filter(pk=user_id).first()
        return user if user is not None and user.is_active else None
