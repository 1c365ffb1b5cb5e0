"""Slots that all processes of a user share."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import ends_well, fork
from unbroken.errors import TryLater
from unbroken.server.login import machine_slots
from unbroken.server.login.machine_slots import MachineSlots

FORK = "ignore:This process:DeprecationWarning"


def test_the_files_belong_to_their_user_alone(tmp_path: Path) -> None:
    with MachineSlots("x", 1, str(tmp_path / "new")).slot():
        pass
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / "x-0").stat().st_mode) == 0o600


@pytest.mark.filterwarnings(FORK)
def test_a_slot_that_another_process_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_slots, "MAX_WAIT_SECONDS", 0.1)

    def refused() -> bool:
        try:
            with slots.slot():
                return False
        except TryLater:
            return True

    def granted() -> bool:
        with slots.slot():
            return True

    slots = MachineSlots("x", 1, str(tmp_path))
    with slots.slot():
        assert refused(), "by a thread of this process"
        assert ends_well(fork(refused)), "a forked child holds none of its parent's, and finds them taken"
    assert ends_well(fork(granted))


@pytest.mark.filterwarnings(FORK)
def test_a_process_that_dies_holds_nothing(tmp_path: Path) -> None:
    slots = MachineSlots("x", 1, str(tmp_path))

    def dies() -> bool:
        slots.slot().__enter__()
        os._exit(0)

    fork(dies)
    with slots.slot():
        pass


def a_folder_for_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def a_link(folder: Path) -> None:
    folder.symlink_to(folder.parent)


def a_file(folder: Path) -> None:
    folder.touch()


def a_link_in_place_of_a_slot(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "x-0").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize("plant", [a_folder_for_all, a_link, a_file, a_link_in_place_of_a_slot])
def test_what_others_may_have_planted_is_not_used(
    tmp_path: Path, plant: Callable[[Path], None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "folder")
    slots = MachineSlots("x", 1, str(tmp_path / "folder"))
    with slots.slot():
        pass
    monkeypatch.setattr(machine_slots, "MAX_WAIT_SECONDS", 0.05)
    with slots.slot(), pytest.raises(TryLater):
        slots._acquire()
    assert not (tmp_path / "elsewhere").exists()
    assert len(caplog.records) == 1, "said once"


def test_without_locks_of_files_the_slots_are_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_slots, "fcntl", None)
    slots, most, inside, guard = MachineSlots("x", 2), 0, 0, threading.Lock()

    def work() -> None:
        nonlocal most, inside
        with slots.slot():
            with guard:
                inside += 1
                most = max(most, inside)
            threading.Event().wait(0.01)
            with guard:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == 2
