"""The blocking port: locks, leases and requests of one refresh."""

from __future__ import annotations

from typing import Any

from tests.support.token_endpoint import URL, TokenEndpoint
from unbroken import Dialect, MemoryStore, RequestTemplate
from unbroken._sync import run_sync
from unbroken.client.core.refresh_rules import Indeterminate
from unbroken.client.port import BlockingPort
from unbroken.testing import ManualClock
from unbroken.tokens import Tokens


def test_a_refresh_that_was_given_up_does_not_send_under_the_lock_of_the_next(
    endpoint: TokenEndpoint, clock: ManualClock
) -> None:
    class Lost:
        def is_held(self) -> bool:
            return False

    leases: list[Any] = [Lost(), None]

    class Lends(MemoryStore):
        def lock(self, timeout: float) -> Any:
            return _Lends(leases.pop(0))

    port = BlockingPort(
        Lends(),
        Dialect(refresh=RequestTemplate(URL)),
        endpoint,
        clock,
        lambda _: None,
        refresh_timeout=1,
        lock_timeout=1,
    )
    first, second = port.for_one_refresh(), port.for_one_refresh()
    run_sync(first.lock().__aenter__())
    run_sync(second.lock().__aenter__())
    response = run_sync(first.send_refresh(Tokens("A", "R"), "x"))
    assert isinstance(response, Indeterminate)
    assert endpoint.calls == []
    run_sync(second.send_refresh(Tokens("A", "R"), "x"))
    assert (first.granted, second.granted) == (False, True)


class _Lends:
    def __init__(self, lease: Any) -> None:
        self._lease = lease

    def __enter__(self) -> Any:
        return self._lease

    def __exit__(self, *_: object) -> None: ...
