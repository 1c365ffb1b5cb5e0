"""One request on its way: what every adapter does, written once, as steps that an adapter carries out.

    Authorize ── Send ──┬── no challenge ───────────────────────────────▶ the answer
                        └── a challenge ──┬── body spent: renew, say why ▶ the server's own answer
                                          └── Renew ── Send again ───────▶ the answer, whatever it is

1. A token goes to the session's origins only, and never over a header that the user has set.
2. Whether the body can be sent again is settled before it is sent. One that cannot is sent with a token in good time,
   never twice and never empty; its answer is final.
3. A challenged answer is read to its end before anybody waits, so that a waiting request holds no connection. Every
   other answer stays as lazy as it came; a body is read only where the dialect asks, of its types and its size. One
   that announces no size is read up to that size; if it is longer, it goes on to the caller whole.
4. The second answer is final; if it is a challenge too, that is remembered as the endpoint's own affair.

An adapter is a loop: it asks for the next step, does it, and hands the outcome in. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from unbroken._http import HttpResponse
from unbroken.client.core.body import Rewind
from unbroken.client.core.dialect import Dialect
from unbroken.client.core.events import ClientEvent, RequestNotReplayed, RequestReplayed
from unbroken.client.core.schedule import ActiveTokens
from unbroken.errors import NotReplayable

__all__ = [
    "NOT_OUR_RESPONSE",
    "FlowStep",
    "NeedNewerTokens",
    "NeedTokens",
    "ReadResponse",
    "ResponsePort",
    "request_flow",
]

NOT_OUR_RESPONSE = 0  # instead of a status: what answered did not get our token, being behind a redirect
BODY_SPENT = "its body could be sent only once"


@dataclass(frozen=True, slots=True)
class NeedTokens:
    """Wanted: tokens to send the request with (a ``Live``); *fresh*: not ageing ones."""

    fresh: bool


@dataclass(frozen=True, slots=True)
class ReadResponse:
    """Wanted: the headers of the answer (names in lower case), or its whole ``body`` as bytes.

    Of a body that is longer than *most* bytes no more than that is wanted: None.
    """

    body: bool
    most: int | None = None


@dataclass(frozen=True, slots=True)
class NeedNewerTokens:
    """Wanted: newer tokens than *sent*, which were challenged by *endpoint*; None to hand the answer over.

    Without *needed* a renewal that does not work now is no error: nobody waits for its tokens.
    """

    sent: ActiveTokens
    endpoint: object
    needed: bool


HEAD, READ = ReadResponse(body=False), ReadResponse(body=True)


class ResponsePort(Protocol):
    """An answer, as an adapter shows it. Whether ``read`` blocks or is awaited is the adapter's choice."""

    def headers(self) -> Mapping[str, str]:
        """Its headers, names in lower case."""

    def read(self, most: int | None = None) -> Any:
        """Its whole body, read to the end so that its connection is free; the caller can read it all the same.

        None if it is longer than *most* bytes, or cannot be decoded; what was read of it is put back.
        """

    def note(self, why: NotReplayable) -> None:
        """Keeps *why* where the caller can find it."""


# Live: send the request with these tokens; wanted: the status of the answer.
# NotReplayable: the request is not sent again; wanted: a note of it at the answer.
FlowStep = NeedTokens | ActiveTokens | ReadResponse | NeedNewerTokens | NotReplayable


def request_flow(
    dialect: Dialect,
    ready: ActiveTokens | None,
    rewind: Rewind | None,
    where: Callable[[Any], object],
    request: Any,
    settled: Callable[[object, ActiveTokens, bool], object],
    tell: Callable[[ClientEvent], object],
) -> Generator[FlowStep, Any, None]:
    """The steps of one request. *rewind* makes its body ready to be sent again; None when it can be sent only once.

    *ready* are tokens in good time, if there are any: then nobody has to be asked for some. *where* names the endpoint
    of *request*; *settled* hears whether it took the tokens that it was given anew.
    """
    sent: ActiveTokens = ready or (yield NeedTokens(fresh=rewind is None))
    status: int = yield sent
    if not dialect.may_challenge(status) or not (yield from _is_challenged(dialect, status)):
        return
    endpoint = where(request)
    fresh: ActiveTokens | None = yield NeedNewerTokens(sent, endpoint, rewind is not None)
    if rewind is None:
        tell(RequestNotReplayed(sent.tokens.version, why=BODY_SPENT))
        yield NotReplayable(BODY_SPENT, renewed=fresh is not None)
        return
    if fresh is None:
        return
    rewind()
    tell(RequestReplayed(fresh.tokens.version))
    status = yield fresh
    settled(endpoint, fresh, not (yield from _is_challenged(dialect, status)))


def _is_challenged(dialect: Dialect, status: int) -> Generator[FlowStep, Any, bool]:
    """Whether the answer at hand is a challenge; it has been read to its end if so."""
    if status == NOT_OUR_RESPONSE or not dialect.may_challenge(status):
        return False
    headers: Mapping[str, str] = yield HEAD
    if not dialect.reads_body:
        if not dialect.is_challenge(HttpResponse(status, headers)):
            return False
        yield READ
        return True
    if not dialect.may_read_body(headers):
        return False
    body: bytes | None = yield ReadResponse(body=True, most=dialect.max_body_bytes)
    return body is not None and dialect.is_challenge(HttpResponse(status, headers, body))
