"""The visitors of the demo page, and the faults that each of them has asked for. Bounded: the oldest are forgotten.

A visitor is a user of the demo's own server, with a password that is made for one page. The same text is the key with
which the page asks for faults, so it can cause faults in its own sessions only.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from unbroken.errors import TooManyAttempts
from unbroken.server.core.events import ServerEvent, SessionCreated, SessionRefreshed
from unbroken.server.keys.access_token import Claims

__all__ = ["Visitor", "Visitors"]

MAX_VISITORS = 500
MAX_VISITORS_PER_MINUTE = 60
MAX_LOGINS = 40  # of one visitor
MAX_EVENTS = 100  # kept for one visitor


@dataclass
class Visitor:
    """One user of the demo. ``newest``: the newest generation of each session. ``expired``: the last generation that
    counts as expired. ``losing``: the sessions that lose the response to their next refresh.
    """

    subject: str
    key: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)
    logins: int = 0
    newest: dict[str, int] = field(default_factory=dict)
    expired: dict[str, int] = field(default_factory=dict)
    losing: set[str] = field(default_factory=set)
    events: deque[dict[str, object]] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    event_count: int = 0

    def expire(self, sid: str = "") -> None:
        """Let the access tokens of *sid*, or of all sessions, count as expired; later ones do not."""
        self.expired |= {one: seq for one, seq in self.newest.items() if sid in ("", one)}

    def lose(self) -> None:
        """Lose the response to the next refresh of each session."""
        self.losing = set(self.newest)

    def add_event(self, event: ServerEvent) -> None:
        """Keep *event* for the page."""
        if isinstance(event, (SessionCreated, SessionRefreshed)):
            self.newest[event.sid] = event.seq if isinstance(event, SessionRefreshed) else 0
        self.event_count += 1
        self.events.append({**event.to_json(), "kind": event.kind, "number": self.event_count})


class Visitors:
    """All visitors, by subject and by key."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_subject: OrderedDict[str, Visitor] = OrderedDict()
        self._arrivals: deque[float] = deque(maxlen=MAX_VISITORS_PER_MINUTE)

    def add(self) -> tuple[Visitor, list[Visitor]]:
        """Return a new visitor, and those who are forgotten for it. Raise TooManyAttempts if too many arrive."""
        now = self._clock()
        if len(self._arrivals) == MAX_VISITORS_PER_MINUTE and now - self._arrivals[0] < 60:
            raise TooManyAttempts("too many visitors at once", retry_after=60 - (now - self._arrivals[0]))
        self._arrivals.append(now)
        visitor = Visitor(f"visitor-{secrets.token_hex(4)}")
        self._by_subject[visitor.subject] = visitor
        surplus = len(self._by_subject) - MAX_VISITORS
        return visitor, [self._by_subject.popitem(last=False)[1] for _ in range(surplus)]

    def by_key(self, key: str) -> Visitor | None:
        """Return the visitor whose page sends this key, which is ``subject.key``."""
        subject, _, rest = key.partition(".")
        visitor = self._by_subject.get(subject)
        return visitor if visitor and hmac.compare_digest(visitor.key.encode(), rest.encode()) else None

    async def authenticate(self, name: str, password: str) -> str | None:
        """Return the subject of a login, for the endpoints."""
        visitor = self.by_key(f"{name}.{password}")
        if visitor is None or visitor.logins >= MAX_LOGINS:
            return None
        visitor.logins += 1
        return visitor.subject

    def on_event(self, event: ServerEvent) -> None:
        """Pass an event on to its visitor."""
        if visitor := self._by_subject.get(event.subject):
            visitor.add_event(event)

    def has_expired(self, claims: Claims) -> bool:
        """Return whether a valid access token counts as expired."""
        visitor = self._by_subject.get(claims.subject)
        return visitor is None or claims.generation <= visitor.expired.get(claims.sid, -1)

    def take_loss(self, subject: str, sid: str) -> bool:
        """Return whether to lose the response to a refresh of *sid*. It is lost once."""
        visitor = self._by_subject.get(subject)
        if visitor is None or sid not in visitor.losing:
            return False
        visitor.losing.discard(sid)
        return True
