"""Locks that are leased: lost responses, and forked children."""

from __future__ import annotations

import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.waiting import until
from unbroken import ConfigurationError, StoreBusy, StoreUnavailable
from unbroken._private_files import has_flock
from unbroken.client.stores import lease as lease_module
from unbroken.client.stores.lease import Clocks, LeaseLock, lasts, machine_lock_path, seconds_after_connection
from unbroken.client.stores.sqlite import SqliteStore

needs_flock = pytest.mark.skipif(not has_flock(), reason="this system has no flock")


class Lock:
    """A lock that is lent; *fail* is what the next question is carried out for, and not answered."""

    lease = 20.0

    def __init__(self) -> None:
        self.holder: str | None = None
        self.fail = ""
        self.extended = 0

    def take_lease(self, holder: str) -> bool:
        free = self.holder in (None, holder)
        self.holder = holder if free else self.holder
        self._may_fail("take")
        return free

    def extend_lease(self, holder: str) -> bool:
        self._may_fail("extend")
        self.extended += 1
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
        assert lease.is_held()
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
        try:
            os._exit(lender._process_name() == parents)
        finally:
            os._exit(2)  # a child that fails does not go on with the tests
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lender._process_name() == parents


@pytest.mark.parametrize("lease", [0, 0.5, timedelta(milliseconds=900)])
def test_a_lease_that_cannot_be_kept_alive_is_refused(tmp_path: Path, lease: float | timedelta) -> None:
    with pytest.raises(ConfigurationError, match="too short"):
        SqliteStore(tmp_path / "t.db", lease=lease)


def test_a_lease_is_kept_alive_for_as_long_as_the_lock_is_held() -> None:
    lock = Lock()
    lock.lease = 0.3
    with LeaseLock(lock).acquire(0.0) as lease:
        until(lambda: lock.extended >= 9)
        assert lease.is_held()
    beats = lock.extended
    time.sleep(0.2)
    assert lock.extended <= beats + 1, "after the release nothing extends it"


def test_a_lease_that_another_holder_has_had_is_lost_for_good() -> None:
    lock = Lock()
    lock.lease = 0.3
    with LeaseLock(lock).acquire(0.0) as lease:
        lock.holder = "another"
        until(lambda: not lease.is_held())
        lock.holder = None
        assert not lease.is_held()


def test_a_store_that_cannot_be_reached_is_asked_again_until_the_lease_is_over() -> None:
    lock = Lock()
    lock.lease = 1.2
    with LeaseLock(lock).acquire(0.0) as lease:
        lock.fail = "extend"
        until(lambda: lock.extended >= 2)
        assert lease.is_held()
        assert lock.fail == ""


def test_nobody_is_certain_of_a_lease_that_others_may_have_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Lock()
    lock.lease = 0.5
    monkeypatch.setattr(lease_module, "BEATS_PER_LEASE", 0.001)
    with LeaseLock(lock).acquire(0.0) as lease:
        assert lease.is_held()
        assert lock.extended == 0
        time.sleep(seconds_after_connection(lock.lease))
        assert lease.is_held()
        assert lock.extended == 1, "it asks, though the lease has not expired yet"


@needs_flock
def test_processes_of_one_machine_have_one_name_for_as_long_as_the_lock_file_excludes_them(tmp_path: Path) -> None:
    lock, path = Lock(), str(tmp_path / "lock")
    with LeaseLock(lock, path).acquire(0.0):
        first = lock.holder
        with pytest.raises(StoreBusy), LeaseLock(lock, path).acquire(0.05):
            pass
    with LeaseLock(lock, path).acquire(0.0):
        assert lock.holder == first
    os.rename(path, path + ".moved")  # as a cleaner of temporary files does
    with LeaseLock(lock, path).acquire(0.0):
        assert lock.holder != first


@needs_flock
def test_the_next_process_gets_the_lease_of_a_dead_one_at_once(tmp_path: Path) -> None:
    lock, path = Lock(), str(tmp_path / "lock")
    dies = LeaseLock(lock, path).acquire(0.0)
    dies.__enter__()
    lock.fail = "release"  # what a dead process does not do
    dies.__exit__(None, None, None)
    assert lock.holder is not None
    with LeaseLock(lock, path).acquire(0.0) as lease:
        assert lease.is_held()


@needs_flock
@pytest.mark.parametrize("planted", ["link", "writable"])
def test_a_folder_of_locks_that_another_user_may_change_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"unbroken-{os.getuid()}"
    assert str(machine_lock_path("redis", "host")).startswith(f"{folder}/")
    if planted == "link":
        folder.rmdir()
        folder.symlink_to(tmp_path)
    else:
        folder.chmod(0o777)
    assert machine_lock_path("redis", "host") is None


def test_a_lease_lasts_only_while_both_clocks_say_so() -> None:
    ends = Clocks(100.0, 1000.0).plus(2.0)
    assert lasts(ends, Clocks(101.0, 1001.0))
    assert not lasts(ends, Clocks(102.0, 1001.0)), "the wall clock was set back"
    assert not lasts(ends, Clocks(101.0, 1002.0)), "the machine has slept"


def test_a_name_that_proves_that_its_last_holder_is_gone_needs_a_lock_file(tmp_path: Path) -> None:
    def holder(path: str | None) -> str:
        with LeaseLock(Lock(), path).acquire(0.0) as lease:
            return lease.holder  # type: ignore[attr-defined]

    assert holder(None) != holder(None)
    if has_flock():
        assert holder(str(tmp_path / "lock")) == holder(str(tmp_path / "lock"))
