"""The flow of one request: what every adapter does, written once as effects, and the loops that carry them out. Pure.

    the first response ─┬─ no challenge ───────────────────────────────────────────────▶ this response
                        └─ challenge ─┬─ body spent ─ NeedNewerTokens ─ MarkNotReplayable ▶ this response
                                      └─ NeedNewerTokens ─ SendWith ─────────────────────▶ the second response

1. Whether the body can be sent again is known before it is sent. One that cannot is sent with a token that is not
   ageing (``_authorize(fresh=True)``), never twice and never empty; its response is final.
2. A challenged response is read to its end before the request waits, so that a waiting request holds no connection; or
   to a bound, and closed there.
3. Every other response stays unread. A body is read only where the dialect looks for a challenge in it, only of its
   types, and only up to its size; a longer one goes on to the caller whole.
4. The second response is final. If it is a challenge too, the endpoint is remembered for it (rule 7 of schedule.py).
5. Tokens that are bound to a key are sent with a proof, which the adapter has signed anew for each try. A response that
   asks for another proof is no challenge: the request is sent again, once for each of the two, with the same tokens.
   The rules about bodies are the same: 1 and 2.
6. The flow begins with the first response. Nearly every request ends there, without a flow: ``is_final`` tells.

Which tokens follow a challenge is decided in refresh_coordinator.py. An adapter decides nothing: it sends the request
with the tokens of the session, takes the next effect, carries it out, and sends the result in. That loop is ``drive``,
or ``adrive`` in an event loop: an adapter passes the first response, and a function that sends the request with given
tokens, both as a ``ResponsePort``. The auth classes of httpx, whose client sends the request itself, have the loop in
themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from unbroken._http import MAX_BODY_BYTES, HttpResponse
from unbroken.client.core.body import Rewind
from unbroken.client.core.dialect import Dialect
from unbroken.client.core.events import ClientEvent, RequestNotReplayed, RequestReplayed
from unbroken.client.core.schedule import TRANSIENT_ERRORS, ActiveTokens
from unbroken.errors import NotReplayable

__all__ = [
    "MAX_CHALLENGE_BYTES",
    "NOT_OUR_RESPONSE",
    "CutBody",
    "Effect",
    "JudgeProof",
    "MarkNotReplayable",
    "NeedNewerTokens",
    "ProofWish",
    "ReadBody",
    "ReadHeaders",
    "ResponsePort",
    "SendWith",
    "SentResponse",
    "TokenSource",
    "adrive",
    "aperform",
    "drive",
    "is_final",
    "perform",
    "request_flow",
]

NOT_OUR_RESPONSE = 0  # in place of a status: the response of a server that did not get our token, behind a redirect
MAX_CHALLENGE_BYTES = MAX_BODY_BYTES  # of the body of a challenge, before and after decoding
BODY_SPENT = "its body could be sent only once"
MAX_PROOFS = 20  # of one request, through all hops of a redirect
ASK_AGAIN = "the server asked for another proof of the client's key, make it anew"


ProofWish = Literal["", "again", "hop"]
"""What a response says about proofs: nothing, that another one is needed, or that a hop of a redirect needs its own."""


class SendWith(NamedTuple):
    """Send the request with *tokens*. Result: the status of the response (int), or ``NOT_OUR_RESPONSE``."""

    tokens: ActiveTokens


class ReadHeaders(NamedTuple):
    """Result: the headers of the response, names in lower case (Mapping[str, str])."""


class ReadBody(NamedTuple):
    """Result: the body of the response (bytes); None if it is longer than *max_bytes* or cannot be decoded."""

    max_bytes: int


class CutBody(NamedTuple):
    """Read the body of a challenge to its end, or to *max_bytes*, and close the response there. No result."""

    max_bytes: int


class JudgeProof(NamedTuple):
    """Result: whether the response asks for another proof (ProofWish). What it tells is kept for the next."""


class NeedNewerTokens(NamedTuple):
    """Result: newer tokens than *sent*, which *endpoint* has challenged (ActiveTokens); None to return the response.

    Without *needed*, a refresh that fails now is no error, because the request is not sent again.
    """

    sent: ActiveTokens
    endpoint: object
    needed: bool


class MarkNotReplayable(NamedTuple):
    """Attach *error* to the response, where the caller can find it. No result."""

    error: NotReplayable


Effect = SendWith | JudgeProof | ReadHeaders | ReadBody | CutBody | NeedNewerTokens | MarkNotReplayable


class ResponsePort(Protocol):
    """A response as an adapter shows it. ``read`` and ``cut`` block, or return an awaitable, as the client does.

    Both stop after a number of seconds too (rule 6 of body.py), and decode no more than *max_bytes*.
    """

    def headers(self) -> Mapping[str, str]:
        """Return the headers, names in lower case."""

    def proof_target(self) -> tuple[str, bool]:
        """Return the URL of the request that got this response, as ``htu_of`` spells it, and whether it was proven.

        Behind a redirect it was not. Called only for requests with bound tokens.
        """

    def read(self, max_bytes: int) -> Any:
        """Read the body to its end, which frees the connection, and put it back for the caller. Return it as bytes.

        Return None if it is longer than *max_bytes*, or cannot be decoded; what was read of it is put back, with the
        rest behind it.
        """

    def cut(self, max_bytes: int) -> Any:
        """Read the body to its end, or to *max_bytes*, which frees the connection; put back what was read.

        Of a longer one its beginning is left for the caller, decoded, and without ``CODING_HEADERS``.
        """

    def mark(self, error: NotReplayable) -> None:
        """Attach *error* to the response."""


def is_final(dialect: Dialect, sent: ActiveTokens, status: int) -> bool:
    """Return whether a response with *status* to *sent* is the last one, whatever else is in it (rule 6)."""
    return not sent.ath and not dialect.may_challenge(status)


def request_flow(
    dialect: Dialect,
    sent: ActiveTokens,
    status: int,
    rewind: Rewind | None,
    endpoint_of: Callable[[Any], object],
    request: Any,
    record_acceptance: Callable[[object, ActiveTokens, bool], object],
    emit: Callable[[ClientEvent], object],
) -> Generator[Effect, Any, None]:
    """Yield the effects of *request* after its first response, which has *status*; it was sent with *sent*.

    *rewind* makes the body ready to be sent again; None if it can be sent only once. *endpoint_of* names the endpoint
    of a request. *record_acceptance* takes the endpoint, the newer tokens, and whether it accepted them.
    """
    if sent.ath:
        status = yield from _proven(sent, status, rewind, emit)  # rule 5
    if not (yield from _is_challenge(dialect, status, sent)):
        return
    endpoint = endpoint_of(request)
    newer: ActiveTokens | None = yield NeedNewerTokens(sent, endpoint, rewind is not None)
    if rewind is None:
        emit(RequestNotReplayed(sent.tokens.version, why=BODY_SPENT))
        yield MarkNotReplayable(NotReplayable(BODY_SPENT, refreshed=newer is not None))
        return
    if newer is None:
        return
    rewind()
    emit(RequestReplayed(newer.tokens.version))
    status = yield SendWith(newer)
    if newer.ath:
        status = yield from _proven(newer, status, rewind, emit)
    record_acceptance(endpoint, newer, not (yield from _is_challenge(dialect, status, newer)))  # rule 4


def _proven(
    sent: ActiveTokens, status: int, rewind: Rewind | None, emit: Callable[[ClientEvent], object]
) -> Generator[Effect, Any, int]:
    """Send the request again as long as its response asks for another proof: once, and once for each hop of a redirect.

    *status* is that of the first response. Return that of the last one; NOT_OUR_RESPONSE if it asks, and the body is
    spent: then it is final.
    """
    repeated = ""
    for _ in range(MAX_PROOFS):
        wish: ProofWish = "" if status == NOT_OUR_RESPONSE else (yield JudgeProof())
        if not wish or wish == repeated == "again":
            return status
        yield CutBody(MAX_CHALLENGE_BYTES)  # rule 2
        if rewind is None:
            emit(RequestNotReplayed(sent.tokens.version, why=BODY_SPENT))
            yield MarkNotReplayable(NotReplayable(BODY_SPENT, then=ASK_AGAIN))
            return NOT_OUR_RESPONSE
        rewind()
        repeated = wish
        status = yield SendWith(sent)
    return status


def _is_challenge(dialect: Dialect, status: int, sent: ActiveTokens) -> Generator[Effect, Any, bool]:
    """Return whether the response to *sent* is a challenge; if so, its connection is free (rule 2)."""
    if status == NOT_OUR_RESPONSE or not dialect.may_challenge(status):
        return False
    headers: Mapping[str, str] = yield ReadHeaders()
    if not dialect.reads_body:
        if not dialect.is_challenge(HttpResponse(status, headers), is_bound=bool(sent.ath)):
            return False
        yield CutBody(MAX_CHALLENGE_BYTES)  # rule 2
        return True
    if not dialect.may_read_body(headers):
        return False  # rule 3
    body: bytes | None = yield ReadBody(dialect.max_body_bytes)
    return body is not None and dialect.is_challenge(HttpResponse(status, headers, body))


# ---- the loops of adapters -------------------------------------------------------------------------------------------


class TokenSource(Protocol):
    """What the effects need of a ``Session``."""

    def _handle_challenge(self, sent: ActiveTokens, endpoint: object) -> ActiveTokens | None:
        """Return newer tokens than *sent*, which *endpoint* has challenged; None to return the response."""

    async def _ahandle_challenge(self, sent: ActiveTokens, endpoint: object) -> ActiveTokens | None:
        """Return what ``_handle_challenge`` returns, without blocking."""

    def _judge_proof(self, response: SentResponse) -> ProofWish:
        """Return whether *response* asks for another proof. Keep what it tells for the next one."""


class SentResponse(ResponsePort, Protocol):
    """A response with its status."""

    @property
    def status(self) -> int:
        """The status, or ``NOT_OUR_RESPONSE``."""


R = TypeVar("R", bound=SentResponse)


def drive(source: TokenSource, flow: Generator[Effect, Any, None], send: Callable[[ActiveTokens], R], response: R) -> R:
    """Carry out the effects of *flow* after the first *response*, with tokens of *source*; return the last response."""
    result: object = None
    try:
        while True:
            effect = flow.send(result)
            if type(effect) is SendWith:
                response = send(effect.tokens)
                result = response.status
            else:
                result = perform(source, effect, response)
    except StopIteration:
        return response


async def adrive(
    source: TokenSource, flow: Generator[Effect, Any, None], send: Callable[[ActiveTokens], Awaitable[R]], response: R
) -> R:
    """Carry out the effects of *flow* as ``drive`` does, without blocking."""
    result: object = None
    try:
        while True:
            effect = flow.send(result)
            if type(effect) is SendWith:
                response = await send(effect.tokens)
                result = response.status
            else:
                result = await aperform(source, effect, response)
    except StopIteration:
        return response


def perform(source: TokenSource, effect: Effect, response: Any) -> object:
    """Carry out any *effect* but SendWith, and return its result.

    *response* is the ResponsePort of the latest response.
    """
    match effect:
        case NeedNewerTokens():
            with _transient_errors(raised=effect.needed):
                return source._handle_challenge(effect.sent, effect.endpoint)
        case JudgeProof():
            return source._judge_proof(response)
        case ReadHeaders():
            return response.headers()
        case ReadBody():
            return response.read(effect.max_bytes)
        case CutBody():
            response.cut(effect.max_bytes)
        case MarkNotReplayable():
            response.mark(effect.error)
    return None


async def aperform(source: TokenSource, effect: Effect, response: Any) -> object:
    """Carry out any *effect* but SendWith, as ``perform`` does, without blocking; ``read`` and ``cut`` are awaited."""
    match effect:
        case NeedNewerTokens():
            with _transient_errors(raised=effect.needed):
                return await source._ahandle_challenge(effect.sent, effect.endpoint)
        case ReadBody():
            return await response.read(effect.max_bytes)
        case CutBody():
            await response.cut(effect.max_bytes)
        case _:
            return perform(source, effect, response)
    return None


def _transient_errors(*, raised: bool) -> AbstractContextManager[None]:
    return nullcontext() if raised else suppress(*TRANSIENT_ERRORS)
