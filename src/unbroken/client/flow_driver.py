"""The drivers of the request flow: they carry out its effects, blocking (``drive``) or awaiting (``adrive``).

An adapter passes a function that sends the request with given tokens and returns the response as a ``ResponsePort``.
The auth classes of httpx, whose client sends the request itself, have the loop of ``drive`` in themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol, TypeVar

from unbroken.client.core.request_flow import (
    CutBody,
    Effect,
    MarkNotReplayable,
    NeedNewerTokens,
    NeedTokens,
    ReadBody,
    ReadHeaders,
    ResponsePort,
    SendWith,
)
from unbroken.client.core.schedule import ActiveTokens
from unbroken.client.refresh_coordinator import TRANSIENT_ERRORS
from unbroken.client.session import Session

__all__ = ["SentResponse", "adrive", "aperform", "drive", "perform"]


class SentResponse(ResponsePort, Protocol):
    """A response with its status."""

    @property
    def status(self) -> int:
        """The status, or ``NOT_OUR_RESPONSE``."""


R = TypeVar("R", bound=SentResponse)


def drive(
    session: Session, flow: Generator[Effect, Any, None], send: Callable[[ActiveTokens], R], response: R | None = None
) -> R:
    """Carry out the effects of *flow* and return the last response.

    *response* is the first one, for a client that has sent the request already.
    """
    try:
        effect = next(flow)
        if response is not None:
            effect = flow.send(response.status)
        while True:
            if type(effect) is SendWith:
                response = send(effect.tokens)
                effect = flow.send(response.status)
            else:
                effect = flow.send(perform(session, effect, response))
    except StopIteration:
        return response  # type: ignore[return-value]  # a flow sends the request at least once


async def adrive(
    session: Session,
    flow: Generator[Effect, Any, None],
    send: Callable[[ActiveTokens], Awaitable[R]],
    response: R | None = None,
) -> R:
    """Carry out the effects of *flow* as ``drive`` does, without blocking."""
    try:
        effect = next(flow)
        if response is not None:
            effect = flow.send(response.status)
        while True:
            if type(effect) is SendWith:
                response = await send(effect.tokens)
                effect = flow.send(response.status)
            else:
                effect = flow.send(await aperform(session, effect, response))
    except StopIteration:
        return response  # type: ignore[return-value]  # a flow sends the request at least once


def perform(session: Session, effect: Effect, response: Any) -> object:
    """Carry out any *effect* but SendWith, and return its result.

    *response* is the ResponsePort of the latest response, None before the first.
    """
    match effect:
        case NeedTokens():
            return session._authorize(fresh=effect.fresh)
        case NeedNewerTokens():
            with _transient_errors(raised=effect.needed):
                return session._handle_challenge(effect.sent, effect.endpoint)
        case ReadHeaders():
            return response.headers()
        case ReadBody():
            return response.read(effect.max_bytes)
        case CutBody():
            response.cut(effect.max_bytes)
        case MarkNotReplayable():
            response.mark(effect.error)
    return None


async def aperform(session: Session, effect: Effect, response: Any) -> object:
    """Carry out any *effect* but SendWith, as ``perform`` does, without blocking; ``read`` and ``cut`` are awaited."""
    match effect:
        case NeedTokens():
            return await session._aauthorize(fresh=effect.fresh)
        case NeedNewerTokens():
            with _transient_errors(raised=effect.needed):
                return await session._ahandle_challenge(effect.sent, effect.endpoint)
        case ReadBody():
            return await response.read(effect.max_bytes)
        case CutBody():
            await response.cut(effect.max_bytes)
        case _:
            return perform(session, effect, response)
    return None


def _transient_errors(*, raised: bool) -> AbstractContextManager[None]:
    return nullcontext() if raised else suppress(*TRANSIENT_ERRORS)
