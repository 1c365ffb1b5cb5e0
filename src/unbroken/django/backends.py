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

from unbroken._concurrency import run_sync
from unbroken.django.convert import to_request
from unbroken.django.runtime import runtime
from unbroken.errors import InvalidProof, InvalidToken
from unbroken.server.core.proof import RequestProof
from unbroken.server.http.messages import access_token_of

__all__ = ["AccessTokenBackend"]


class AccessTokenBackend(BaseBackend):
    """Authenticates users by their access tokens. Grants no permissions."""

    def authenticate(
        self,
        request: HttpRequest | None,
        token: str | None = None,
        **_: Any,  # credentials of other backends
    ) -> Any:
        """Return the user of a good access *token*, or None. Blocks. Raise TryLater if it cannot be verified now.

        A token that is bound to a key is good with the proof of *request*, where it came as ``DPoP``.
        """
        if not token:
            return None
        try:
            return runtime().users.get(run_sync(runtime().verifier.averify(token, _proof(request))).subject)
        except (InvalidToken, InvalidProof):
            return None

    def get_user(self, user_id: Any) -> Any:
        """Return the active user with this primary key, which Django keeps in ``request.session``; or None."""
        user: Any = auth.get_user_model()._default_manager.filter(pk=user_id).first()
        return user if user is not None and user.is_active else None


def _proof(request: HttpRequest | None) -> RequestProof | None:
    """Return the proof that came with a token as ``Authorization: DPoP`` (RFC 9449 §7.1); None for any other."""
    sent = None if request is None else to_request(request)
    return sent.proof_or_none_sent if sent is not None and access_token_of(sent)[0] == "dpop" else None
