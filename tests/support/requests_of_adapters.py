"""What an adapter asks of a ``Session`` for one request: the methods of ``request_flow.TokenSource``."""

from __future__ import annotations

from unbroken import Session
from unbroken.client.core.schedule import ActiveTokens

__all__ = ["tokens_after_challenge", "tokens_for_request"]


def tokens_for_request(session: Session) -> ActiveTokens:
    """Return the tokens that a request is sent with."""
    return session._authorize()


def tokens_after_challenge(session: Session, sent: ActiveTokens, endpoint: object) -> ActiveTokens | None:
    """Return the tokens to repeat a request with that was sent with *sent*, and challenged by *endpoint*."""
    return session._handle_challenge(sent, endpoint)
