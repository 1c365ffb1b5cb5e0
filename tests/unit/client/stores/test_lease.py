"""Locks that are leased: lost responses, and forked children."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unbroken import ConfigurationError, Session, StoreUnavailable
from unbroken.client.stores.lease import LeaseLock
from unbroken.client.stores.sqlite import SqliteStore


class Lock:
    """A lock that is lent; *fail* is what the next question is carried out for, and not answered."""

    lease = 20.0

    def __init__(self) -> None:
        self.holder: str | None = None
        self.fail = ""

    def take_lease(self, holder: str) -> bool:
        free = self.holder in (None, holder)
        self.holder = holder if free else self.holder
        self._may_fail("take")
        return free

    def extend_lease(self, holder: str) -> bool:
        return self.holder == holder

    def release_lease(self, holder: str) -> None:
        self._may_fail("release")
        self.holder = None if self.holder == holder else self.holder

    def _may_fail(self, what: str) -> None:
        if self.fail == what:
            self.fail = ""
            raise StoreUnavailable("no answer")


def test_a_lease_whose_response_was_lost_is_acquired_again() -> None:
    lock = Lock()
    lender = LeaseLock(lock)
    lock.fail = "take"
    with pytest.raises(StoreUnavailable), lender.acquire(0.0):
        pass
    assert lock.holder is not None
    with lender.acquire(0.0) as lease:
        assert lease.is_held(1.0)
    assert lock.holder is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_acquires_leases_under_a_name_of_its_own() -> None:
    lock = Lock()
    lender = LeaseLock(lock)
    lock.fail = "release"
    with lender.acquire(0.0):
        pass
    parents = lock.holder
    child = os.fork()
    if child == 0:
        os._exit(lender._holder_name() == parents)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lender._holder_name() == parents


def test_a_lease_must_outlive_a_refresh(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="lease of 10 seconds"):
        Session("https://api.example", SqliteStore(tmp_path / "t.db", lease=10.0))
