"""The door that every guess goes through: the guard before it, and the news of it after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from unbroken.errors import ConfigurationError, LoginRefused, Refused, TooManyAttempts, TryLater
from unbroken.server import events
from unbroken.server.guard import Guard, Try
from unbroken.server.http import Request
from unbroken.server.recent import Recent

__all__ = ["Door", "agent_of"]

T = TypeVar("T")
QUIET = 60.0  # seconds between two pieces of news of the same throttled account and address
REMEMBERED = 1000


class Door:
    """Lets guesses be made, under *guard* if there is one, and tells of those that fail."""

    def __init__(self, guard: Guard | None, tell: Callable[[events.Event], None]) -> None:
        self._guard, self._tell = guard, tell
        self._told: Recent[tuple[bytes, str], float] = Recent(REMEMBERED)

    async def guess(
        self, request: Request, account: bytes, why: str, look: Callable[[], Awaitable[T]]
    ) -> tuple[T, Try | None]:
        """What *look* gives, which raises LoginRefused for a wrong guess; and the try, for ``was_right``.

        Raises what *look* raises, and TooManyAttempts.
        """
        one = await self._admit(request, account)
        try:
            return await look(), one
        except LoginRefused as error:
            said = why if error.reason == error.code else error.reason
            self._tell(
                events.LoginRefused(
                    account=_word(account), why=said, ip=request.client_ip, user_agent=agent_of(request)
                )
            )
            raise
        except (Refused, TryLater, ConfigurationError):
            await self.take_back(one)
            raise

    async def was_right(self, one: Try | None) -> None:
        """The guess was right."""
        if self._guard and one:
            await self._guard.was_right(one)

    async def was_right_before(self, request: Request, account: bytes) -> None:
        """A guess at *account*, which was taken back because there was more to ask, was right after all."""
        if self._guard:
            await self._guard.was_right(self._guard.free_try(account, request.client_ip))

    async def take_back(self, one: Try | None) -> None:
        """The guess was none."""
        if self._guard and one:
            await self._guard.take_back(one)

    async def _admit(self, request: Request, account: bytes) -> Try | None:
        if self._guard is None:
            return None
        try:
            return await self._guard.admit(account, request.client_ip)
        except TooManyAttempts as error:
            self._tell_throttled(request, account, error.retry_after)
            raise

    def _tell_throttled(self, request: Request, account: bytes, retry_after: float) -> None:
        """Not for every request: an attack must not become a flood of news."""
        now, whom = monotonic(), (account, request.client_ip)
        if now - self._told.get(whom, float("-inf")) < QUIET:
            return
        self._told.forget(whom)
        self._told.keep(whom, now)
        word, agent = _word(account), agent_of(request)
        self._tell(events.LoginThrottled(account=word, retry_after=retry_after, ip=request.client_ip, user_agent=agent))


def agent_of(request: Request) -> str:
    """What the client calls itself."""
    return request.headers.get("user-agent", "")


def _word(account: bytes) -> str:
    """What stands for an account in events: as much of its key as tells accounts apart."""
    return account.hex()[:16]
