"""The at-fork registry, in real forked children."""

from __future__ import annotations

import gc
import os
import weakref

import pytest

from unbroken import _fork

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")


class Recorder:
    """Counts its resets."""

    resets = 0

    def reset_after_fork(self) -> None:
        self.resets += 1


def exit_status_of_child(recorder: Recorder) -> int:
    """Fork a child that exits with the number of resets that it sees."""
    child = os.fork()
    if child == 0:
        os._exit(recorder.resets)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_an_object_is_reset_once_in_each_child_and_never_in_the_parent() -> None:
    recorder = Recorder()
    _fork.register_fork_aware(recorder)
    assert [exit_status_of_child(recorder), exit_status_of_child(recorder)] == [1, 1]
    assert recorder.resets == 0


def test_the_registry_keeps_no_object_alive() -> None:
    recorder = Recorder()
    _fork.register_fork_aware(recorder)
    gone = weakref.ref(recorder)
    del recorder
    gc.collect()
    assert gone() is None
