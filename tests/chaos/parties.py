"""Those who hold a session's tokens, on either of two nodes, and what becomes of tokens that must be dead."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import Any, Self, TypeVar

from tests.chaos.node import PASSWORD, ask, host_and_port
from tests.support.waiting import until

__all__ = ["Answer", "Dead", "at_once", "log_in", "refresh", "send_and_hang_up", "whoami"]

T = TypeVar("T")
Answer = tuple[int, dict[str, Any]]
PAUSE = 0.01  # between two looks
PROMISED = 1.0  # seconds after which a revoked session's access tokens are good nowhere


def log_in(url: str, name: str = "ada", *, coordinated: bool = False) -> dict[str, Any]:
    body = {"username": name, "password": PASSWORD, "coordinated": coordinated}
    status, tokens = ask(url, "POST", "/auth/login", body)
    assert status == 200, tokens
    return tokens


def refresh(url: str, token: str, attempt: str = "") -> Answer:
    headers = {"idempotency_key": f'"{attempt}"'} if attempt else {}
    return ask(url, "POST", "/auth/refresh", {"refresh_token": token}, **headers)


def whoami(url: str, access_token: str) -> Answer:
    return ask(url, "GET", "/auth/session", authorization=f"Bearer {access_token}")


def send_and_hang_up(url: str, token: str, attempt: str, has_happened: Callable[[], bool]) -> None:
    """Sends a refresh, and hangs up when it *has happened*, without having read the response."""
    connection = http.client.HTTPConnection(*host_and_port(url), timeout=30.0)
    headers = {"content-type": "application/json"} | ({"idempotency-key": f'"{attempt}"'} if attempt else {})
    try:
        connection.request("POST", "/auth/refresh", f'{{"refresh_token": "{token}"}}', headers)
        until(has_happened, "a refresh that was sent")
    finally:
        connection.close()


def at_once(*works: Callable[[], T]) -> list[T]:
    """What each of *works* gives, all of them begun at the same moment."""
    barrier = Barrier(len(works))

    def begin(work: Callable[[], T]) -> T:
        barrier.wait(30.0)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(begin, works))


class Dead:
    """``with Dead(urls) as dead:`` tokens that must be dead on every node within a second; looked at in threads."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls, self._pool = urls, ThreadPoolExecutor(16)
        self._looks: list[Future[float]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._pool:
            worst = [look.result() for look in self._looks]
        if kind is None:
            assert worst, "nothing was looked at"

    def soon(self, access_tokens: Sequence[str]) -> None:
        """*access_tokens* must be dead in a second from now."""
        since = time.monotonic()
        self._looks += [self._pool.submit(_dies, url, token, since) for url in self._urls for token in access_tokens]


def _dies(url: str, access_token: str, since: float) -> float:
    """Seconds after *since* at which the last request was sent that was let in. Fails if that is more than promised."""
    last = since
    while True:
        sent = time.monotonic()
        status, told = whoami(url, access_token)
        if status != 200:
            assert (status, told.get("reason")) == (401, "revoked"), told
            return last - since
        last = sent
        time.sleep(PAUSE)
        assert last - since <= PROMISED, f"let in {last - since:.2f} s after its session was ended"
