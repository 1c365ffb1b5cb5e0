"""The door that every guess goes through: the guard before it, and the news of it after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from unbroken.errors import ConfigurationError, LoginRefused, Refused, TooManyAttempts, TryLater
from unbroken.server import events
from unbroken.server.guard import Guard, Try, address_key
from unbroken.server.http import Request
from unbroken.server.info import LONGEST_AGENT
from unbroken.server.recent import Recent

__all__ = ["Door", "agent_of"]

T = TypeVar("T")
QUIET = 60.0  # seconds between two pieces of news of the same throttled account and address
CROWD = 10  # pieces of news in that time of one address, whatever the accounts: names cost an attacker nothing
REMEMBERED = 1000


class Door:
    """Lets guesses be made, under *guard* if there is one, and tells of those that fail."""

    def __init__(self, guard: Guard | None, tell: Callable[[events.Event], None]) -> None:
        self._guard, self._tell = guard, tell
        self._told: Recent[tuple[bytes, bytes], float] = Recent(REMEMBERED)
        self._crowds: Recent[bytes, tuple[float, int]] = Recent(REMEMBERED)

    async def guess(
        self, request: Request, account: bytes, why: str, look: Callable[[], Awaitable[T]], spelling: bytes = b""
    ) -> tuple[T, Try | None]:
        """What *look* gives, which raises LoginRefused for a wrong guess; and the try, for ``was_right``.

        Raises what *look* raises, and TooManyAttempts.
        """
        one = await self._admit(request, account, spelling)
        try:
            return await look(), one
        except LoginRefused as error:
            said = why if error.reason == error.code else error.reason
            self.tell_refused(request, account, said)
            raise
        except (Refused, TryLater, ConfigurationError):
            await self.take_back(one)
            raise

    def tell_refused(self, request: Request, account: bytes, why: str) -> None:
        """Tells of a login that was refused."""
        ip, agent = request.client_ip, agent_of(request)
        self._tell(events.LoginRefused(account=_word(account), why=why, ip=ip, user_agent=agent))

    async def was_right(self, one: Try | None) -> None:
        """The guess was right."""
        if self._guard and one:
            await self._guard.was_right(one)

    async def was_right_before(self, request: Request, account: bytes, spelling: bytes) -> None:
        """A guess at *account*, which was taken back because there was more to ask, was right after all."""
        if self._guard:
            await self._guard.was_right(self._guard.free_try(account, request.client_ip, spelling))

    async def take_back(self, one: Try | None) -> None:
        """The guess was none."""
        if self._guard and one:
            await self._guard.take_back(one)

    async def _admit(self, request: Request, account: bytes, spelling: bytes) -> Try | None:
        if self._guard is None:
            return None
        try:
            return await self._guard.admit(account, request.client_ip, spelling)
        except TooManyAttempts as error:
            self._tell_throttled(request, account, error.retry_after)
            raise

    def _tell_throttled(self, request: Request, account: bytes, retry_after: float) -> None:
        """Not for every request: an attack must not become a flood of news."""
        if not self._is_news(account, address_key(request.client_ip)):
            return
        word, agent = _word(account), agent_of(request)
        self._tell(events.LoginThrottled(account=word, retry_after=retry_after, ip=request.client_ip, user_agent=agent))

    def _is_news(self, account: bytes, address: bytes) -> bool:
        now, whom = monotonic(), (account, address)
        since, count = self._crowds.get(address, (now, 0))
        if now - since >= QUIET:
            since, count = now, 0
        if count >= CROWD or now - self._told.get(whom, float("-inf")) < QUIET:
            return False
        self._told.forget(whom)
        self._told.keep(whom, now)
        self._crowds.forget(address)
        self._crowds.keep(address, (since, count + 1))
        return True


def agent_of(request: Request) -> str:
    """What the client calls itself: as much of it as is kept and told, and without NUL, which no database keeps."""
    return request.headers.get("user-agent", "")[:LONGEST_AGENT].replace("\0", "")


def _word(account: bytes) -> str:
    """What stands for an account in events: as much of its key as tells accounts apart."""
    return account.hex()[:16]
