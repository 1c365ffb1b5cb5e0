"""Who looks at the demo page, and what each of them has asked for. Bounded: of too many visitors, the oldest go.

A visitor is a user of the demo's own server, with a password that is made for one page and known to nobody else. The
same text is the key by which the page asks for trouble: it can make trouble for its own sessions only.
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

MOST = 500  # visitors
MOST_A_MINUTE = 60
LOGINS = 6  # of one visitor
TOLD = 100  # events that are kept for one visitor


@dataclass
class Visitor:
    """One user of the demo. ``newest`` is the newest generation of each session, ``expired`` the last one that has
    expired before its time, ``losing`` the sessions whose next answer to a refresh is lost.
    """

    subject: str
    key: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)
    logins: int = 0
    newest: dict[str, int] = field(default_factory=dict)
    expired: dict[str, int] = field(default_factory=dict)
    losing: set[str] = field(default_factory=set)
    told: deque[dict[str, object]] = field(default_factory=lambda: deque(maxlen=TOLD))
    number: int = 0  # of the last event

    def expire(self, sid: str = "") -> None:
        """The access tokens of *sid*, or of all sessions, count as expired from now on; newer ones do not."""
        self.expired |= {one: seq for one, seq in self.newest.items() if sid in ("", one)}

    def lose(self) -> None:
        """The next answer to a refresh is lost, for each session."""
        self.losing = set(self.newest)

    def hear(self, event: ServerEvent) -> None:
        """Takes note of what the server tells about this visitor."""
        if isinstance(event, (SessionCreated, SessionRefreshed)):
            self.newest[event.sid] = event.seq if isinstance(event, SessionRefreshed) else 0
        self.number += 1
        self.told.append({**event.to_json(), "kind": event.kind, "number": self.number})


class Visitors:
    """All visitors, by subject and by key."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, Visitor] = OrderedDict()
        self._came: deque[float] = deque(maxlen=MOST_A_MINUTE)

    def new(self) -> tuple[Visitor, list[Visitor]]:
        """A new visitor, and those who are forgotten for it. Raises TooManyAttempts if they come too fast."""
        now = self._clock()
        if len(self._came) == MOST_A_MINUTE and now - self._came[0] < 60:
            raise TooManyAttempts("too many visitors at once", retry_after=60 - (now - self._came[0]))
        self._came.append(now)
        visitor = Visitor(f"visitor-{secrets.token_hex(4)}")
        self._known[visitor.subject] = visitor
        return visitor, [self._known.popitem(last=False)[1] for _ in range(len(self._known) - MOST)]

    def of(self, subject: str) -> Visitor | None:
        return self._known.get(subject)

    def by_key(self, key: str) -> Visitor | None:
        """The visitor whose page sends this key, which is ``subject.key``."""
        subject, _, rest = key.partition(".")
        visitor = self._known.get(subject)
        return visitor if visitor and hmac.compare_digest(visitor.key.encode(), rest.encode()) else None

    async def authenticate(self, name: str, password: str) -> str | None:
        """Who this is; for the endpoints of the demo."""
        visitor = self.by_key(f"{name}.{password}")
        if visitor is None or visitor.logins >= LOGINS:
            return None
        visitor.logins += 1
        return visitor.subject

    def hear(self, event: ServerEvent) -> None:
        """Passes on what the server tells."""
        if visitor := self._known.get(event.subject):
            visitor.hear(event)

    def has_expired(self, claims: Claims) -> bool:
        """Whether a good access token counts as expired."""
        visitor = self._known.get(claims.subject)
        return visitor is None or claims.generation <= visitor.expired.get(claims.sid, -1)

    def loses(self, subject: str, sid: str) -> bool:
        """Whether the answer to a refresh of *sid* is lost. Asking for it is losing it."""
        visitor = self._known.get(subject)
        if visitor is None or sid not in visitor.losing:
            return False
        visitor.losing.discard(sid)
        return True
