"""A strict server that is not ours, as a process of its own: a forked test does not take it along."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.clients.cell import counters_of, family
from bench.clients.matrix import server
from unbroken import Dialect, TokenResponse, oauth2

__all__ = ["Login", "StrictServer", "strict_server"]


class Login:
    """One login at a strict server: its tokens, and what the server has counted for it."""

    def __init__(self, url: str, lifetime: float, delay: float) -> None:
        self.url = url
        made = family(url, {"token_delay": delay, "says": lifetime, "lives": lifetime})
        self._name = made["family"]
        self.dialect: Dialect = oauth2(url + "/token")
        self.tokens = TokenResponse(made["access_token"], made["refresh_token"], lifetime)

    def counted(self) -> tuple[int, int]:
        """How many refreshes there were, and how many used a token a second time."""
        seen: dict[str, Any] = counters_of(self.url, self._name)
        return seen["refreshes"], seen["reuses"]


class StrictServer:
    """Each refresh token is used up when its request arrives, and its use again ends the login."""

    def __init__(self, url: str) -> None:
        self.url = url

    def login(self, *, lifetime: float = 3600.0, delay: float = 0.3) -> Login:
        """A new login, whose refreshes take *delay* seconds."""
        return Login(self.url, lifetime, delay)


@contextmanager
def strict_server() -> Iterator[StrictServer]:
    with server("bench.clients.backend") as port:
        yield StrictServer(f"http://127.0.0.1:{port}")
