"""Users who refresh without end, whatever happens to the server, and who notice if they are logged out.

1. Half of a ``Herd`` are sessions of our own client, coordinated, with idempotency keys. Others are foreign: they know
   nothing of attempts, and ask again at once when an answer is lost.
2. Each is a thread. Our own clients' clocks jump ahead before each use, so that each use needs a refresh.
3. A client that is refused, or answered with anything but tokens or 503, is ``lost``, with what it was told.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self
from urllib.parse import urlencode

from tests.chaos.node import PASSWORD, ask, host_and_port
from tests.support.waiting import until
from unbroken import Session, SessionOver, TryLater
from unbroken._time import Clock
from unbroken.server import Sessions, open_store

__all__ = ["Foreign", "Herd", "Ours", "Visitor", "reuse_alarms"]

HOUR = 3600.0
PAUSE = 0.05  # of a foreign client that finds nobody, and of a visitor
FORM = {"content-type": "application/x-www-form-urlencoded"}


class Client(threading.Thread, ABC):
    """One user: how often the tokens were refreshed, how often that failed for a while, and what ended it for good."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.url, self.refreshes, self.failures, self.lost = url, 0, 0, ""
        self.ended = threading.Event()

    def run(self) -> None:
        try:
            while not self.ended.is_set() and not self.lost:
                self.refresh()
        except Exception as error:  # noqa: BLE001  # told by whoever asks how the herd is
            self.lost = repr(error)

    @abstractmethod
    def refresh(self) -> None:
        """Tries once. Counts it."""


class Ours(Client):
    """A session of our own client."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url, name)
        self._ahead = 0.0
        clock = Clock(lambda: time.time() + self._ahead, lambda: time.monotonic() + self._ahead)
        self.session = Session(url, window=None, clock=clock, refresh_timeout=10.0)
        self.session.login(name, PASSWORD)

    def refresh(self) -> None:
        self._ahead += HOUR
        try:
            self.session.token()
            self.refreshes += 1
        except SessionOver as over:
            self.lost = over.reason
        except TryLater:
            self.failures += 1

    def access_token(self) -> str:
        return self.session.token()


class Foreign(Client):
    """A plain client of RFC 6749 §6, with one connection that it keeps."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url, name)
        status, self._tokens = ask(url, "POST", "/auth/login", {"username": name, "password": PASSWORD})
        assert status == 200, self._tokens
        self._connection = http.client.HTTPConnection(*host_and_port(url), timeout=10.0)

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._connection.close()

    def refresh(self) -> None:
        form = urlencode({"grant_type": "refresh_token", "refresh_token": self._tokens["refresh_token"]})
        try:
            self._connection.request("POST", "/auth/token", form, FORM)
            with self._connection.getresponse() as response:
                status, text = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self.failures += 1
            if isinstance(error, ConnectionRefusedError):
                self.ended.wait(PAUSE)
            return
        if status == 200:
            self._tokens = json.loads(text)
            self.refreshes += 1
        elif status == 503:
            self.failures += 1
            self.ended.wait(PAUSE)
        else:
            self.lost = f"{status} {text.decode()}"

    def access_token(self) -> str:
        token: str = self._tokens["access_token"]
        return token


class Visitor(Client):
    """Logs in again and again, and logs out every other time: what the server has promised must last."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url, name)
        self.staying: list[str] = []  # refresh tokens of sessions that were begun
        self.gone: list[str] = []  # and of those that were ended

    def refresh(self) -> None:
        try:
            status, tokens = ask(self.url, "POST", "/auth/login", {"username": self.name, "password": PASSWORD}, 10.0)
            token = tokens.get("refresh_token", "")
            leaves = status == 200 and len(self.staying) > len(self.gone)
            if leaves and self._logs_out(token):
                self.gone.append(token)
            elif status == 200 and not leaves:
                self.staying.append(token)
        except (OSError, http.client.HTTPException):
            status = 503
        self.refreshes += status == 200
        if status not in (200, 503):
            self.lost = f"{status} at a login"
        self.failures += status == 503
        self.ended.wait(PAUSE)

    def _logs_out(self, token: str) -> bool:
        return ask(self.url, "POST", "/auth/logout", {"refresh_token": token}, 10.0)[0] == 204

    def check(self) -> None:
        """Fails if a session that was promised is not there, or if one that was ended is there again."""
        assert not self.lost
        assert self.staying
        assert self.gone
        for token, expected in [(token, 200) for token in self.staying] + [(token, 400) for token in self.gone]:
            status, told = ask(self.url, "POST", "/auth/refresh", {"refresh_token": token})
            assert status == expected, told


class Herd:
    """``with Herd(url, 128) as herd:`` so many clients who refresh until the end of the block, as fast as they can."""

    def __init__(self, url: str, count: int) -> None:
        kinds = [(Ours if n % 2 else Foreign, f"user-{n}") for n in range(count)]
        with ThreadPoolExecutor(8) as pool:
            self.clients: Sequence[Any] = list(pool.map(lambda kind: kind[0](url, kind[1]), kinds))
        self.url = url

    def __enter__(self) -> Self:
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.ended.set()
        for client in self.clients:
            client.join(60.0)

    @property
    def refreshes(self) -> int:
        return sum(client.refreshes for client in self.clients)

    @property
    def failures(self) -> int:
        return sum(client.failures for client in self.clients)

    def run_for(self, refreshes: int) -> None:
        """Returns in the middle of their work, after so many more *refreshes*."""
        before = self.refreshes
        until(lambda: self.lost() or self.refreshes >= before + refreshes, f"{refreshes} refreshes", 60.0)
        assert self.lost() == {}

    def all_have_their_sessions(self, times: int = 1) -> None:
        """Returns when each of them was given new tokens so many *times* from now on; fails if one is logged out."""
        wanted = [(client, client.refreshes + times) for client in self.clients]
        done = lambda: all(client.refreshes >= count for client, count in wanted)  # noqa: E731
        until(lambda: self.lost() or done(), "new tokens for everybody", 60.0)
        assert self.lost() == {}

    def lost(self) -> dict[str, str]:
        return {client.name: client.lost for client in self.clients if client.lost}

    def are_let_in(self) -> None:
        """Fails unless the access token of each is good. To be called when they have stopped."""
        for client in self.clients:
            bearer = f"Bearer {client.access_token()}"
            status, told = ask(self.url, "GET", "/auth/session", authorization=bearer)
            assert (status, told.get("sub")) == (200, client.name), told


def reuse_alarms(store: str) -> int:
    """How many sessions in *store* were ended because a token was used twice."""
    sessions = Sessions(open_store(store))
    try:
        return sum(info.revoked_why == "reuse" for info in sessions.list_sessions(include_revoked=True))
    finally:
        sessions.close()


def tokens_of(answer: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    """The tokens of an answer that must have them."""
    status, told = answer
    assert status == 200, told
    return told
