"""gRPC calls, each with a good access token.

gRPC asks its call credentials for a token before every call, in a thread of its own, so they may wait for a refresh.
It sends them only over secure channels: TLS, or a connection that does not leave the machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import grpc

from unbroken import Session, UnbrokenError


class SessionCredentials(grpc.AuthMetadataPlugin):
    """Call credentials that take their token from a session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, _context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            token = self._session.token()
        except UnbrokenError as error:
            callback((), error)  # the caller sees UNAVAILABLE, with the error's message
        else:
            callback((("authorization", f"Bearer {token}"),), None)


class RetryWithNewToken(grpc.UnaryUnaryClientInterceptor):
    """Repeats a call once, with a new token, when the server rejects its token."""

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        response = continuation(details, request)
        rejected = response.code() is grpc.StatusCode.UNAUTHENTICATED
        return continuation(details, request) if rejected else response


def channel(target: str, session: Session) -> grpc.Channel:
    """Return a channel to *target* whose calls carry the tokens of *session*."""
    is_local = target.startswith("127.0.0.1:")
    safe = grpc.local_channel_credentials() if is_local else grpc.ssl_channel_credentials()
    signed = grpc.composite_channel_credentials(safe, grpc.metadata_call_credentials(SessionCredentials(session)))
    return grpc.intercept_channel(grpc.secure_channel(target, signed), RetryWithNewToken())


if __name__ == "__main__":
    session = Session(sys.argv[1])
    session.login(os.environ["API_USER"], os.environ["API_PASSWORD"])
    with channel(sys.argv[2], session) as shop:
        print(shop.unary_unary("/shop.Orders/List")(b"", timeout=10).decode())
