"""gRPC calls that carry a good access token each.

gRPC asks its call credentials for a token before every call, in a thread of its own, so they may wait for a renewal.
It sends them over channels that are safe only: TLS, or a connection that does not leave the machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import grpc

from unbroken import Session, UnbrokenError


class SessionCredentials(grpc.AuthMetadataPlugin):
    """The tokens of a session, as call credentials."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, _context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            token = self._session.token()
        except UnbrokenError as error:
            callback((), error)  # the caller sees UNAVAILABLE, with the error's message
        else:
            callback((("authorization", f"Bearer {token}"),), None)


class OnceMore(grpc.UnaryUnaryClientInterceptor):
    """Makes a call again, once, whose token died on the way; the credentials are asked again."""

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        answer = continuation(details, request)
        return continuation(details, request) if answer.code() is grpc.StatusCode.UNAUTHENTICATED else answer


def channel(target: str, session: Session) -> grpc.Channel:
    """A channel to *target* whose calls are made in the name of *session*."""
    here = target.startswith("127.0.0.1:")
    safe = grpc.local_channel_credentials() if here else grpc.ssl_channel_credentials()
    signed = grpc.composite_channel_credentials(safe, grpc.metadata_call_credentials(SessionCredentials(session)))
    return grpc.intercept_channel(grpc.secure_channel(target, signed), OnceMore())


if __name__ == "__main__":
    session = Session(sys.argv[1])
    session.login(os.environ["API_USER"], os.environ["API_PASSWORD"])
    with channel(sys.argv[2], session) as shop:
        print(shop.unary_unary("/shop.Orders/List")(b"", timeout=10).decode())
