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

from unbroken._http import Reply
from unbroken.client.core.body import Rewind
from unbroken.client.core.dialect import Dialect
from unbroken.client.core.events import Event, NotReplayed, Replayed
from unbroken.client.core.schedule import Live
from unbroken.errors import NotReplayable

__all__ = ["NO_ANSWER_OF_OURS", "Authorize", "Read", "Received", "Renew", "Step", "passage"]

NO_ANSWER_OF_OURS = 0  # instead of a status: what answered did not get our token, being behind a redirect
SPENT = "its body could be sent only once"


@dataclass(frozen=True, slots=True)
class Authorize:
    """Wanted: tokens to send the request with (a ``Live``); *fresh*: not ageing ones."""

    fresh: bool


@dataclass(frozen=True, slots=True)
class Read:
    """Wanted: the headers of the answer (names in lower case), or its whole ``body`` as bytes.

    Of a body that is longer than *most* bytes no more than that is wanted: None.
    """

    body: bool
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Renew:
    """Wanted: newer tokens than *sent*, which were challenged by *endpoint*; None to hand the answer over.

    Without *needed* a renewal that does not work now is no error: nobody waits for its tokens.
    """

    sent: Live
    endpoint: object
    needed: bool


HEAD, READ = Read(body=False), Read(body=True)


class Received(Protocol):
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
Step = Authorize | Live | Read | Renew | NotReplayable


def passage(
    dialect: Dialect,
    ready: Live | None,
    rewind: Rewind | None,
    where: Callable[[Any], object],
    request: Any,
    settled: Callable[[object, Live, bool], object],
    tell: Callable[[Event], object],
) -> Generator[Step, Any, None]:
    """The steps of one request. *rewind* makes its body ready to be sent again; None when it can be sent only once.

    *ready* are tokens in good time, if there are any: then nobody has to be asked for some. *where* names the endpoint
    of *request*; *settled* hears whether it took the tokens that it was given anew.
    """
    sent: Live = ready or (yield Authorize(fresh=rewind is None))
    status: int = yield sent
    if not dialect.may_challenge(status) or not (yield from _challenged(dialect, status)):
        return
    endpoint = where(request)
    fresh: Live | None = yield Renew(sent, endpoint, rewind is not None)
    if rewind is None:
        tell(NotReplayed(sent.tokens.version, why=SPENT))
        yield NotReplayable(SPENT, renewed=fresh is not None)
        return
    if fresh is None:
        return
    rewind()
    tell(Replayed(fresh.tokens.version))
    status = yield fresh
    settled(endpoint, fresh, not (yield from _challenged(dialect, status)))


def _challenged(dialect: Dialect, status: int) -> Generator[Step, Any, bool]:
    """Whether the answer at hand is a challenge; it has been read to its end if so."""
    if status == NO_ANSWER_OF_OURS or not dialect.may_challenge(status):
        return False
    headers: Mapping[str, str] = yield HEAD
    if not dialect.reads_body:
        if not dialect.challenged(Reply(status, headers)):
            return False
        yield READ
        return True
    if not dialect.may_read(headers):
        return False
    body: bytes | None = yield Read(body=True, most=dialect.read_most)
    return body is not None and dialect.challenged(Reply(status, headers, body))
