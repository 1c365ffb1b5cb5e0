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
from unbroken.server.http.messages import access_token_of
from unbroken.server.keys.access_token import Claims

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
            return runtime().users.get(run_sync(_verified(request, token)).subject)
        except (InvalidToken, InvalidProof):
            return None

    def get_user(self, user_id: Any) -> Any:
        """Return the active user with this primary key, which Django keeps in ``request.session``; or None."""
        user: Any = auth.get_user_model()._default_manager.filter(pk=user_id).first()
        return user if user is not None and user.is_active else None


async def _verified(request: HttpRequest | None, token: str) -> Claims:
    """Return the claims of *token*, with the proof that came with it as ``Authorization: DPoP`` (RFC 9449 §7.1)."""
    if request is None:
        return await runtime().verifier.averify(token)
    sent = to_request(request)
    proof = sent.proof_or_none_sent if access_token_of(sent)[0] == "dpop" else None
    return await runtime().authenticator.verify_token(sent, token, proof)
