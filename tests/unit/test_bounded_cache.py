"""A cache of bounded size, for many threads."""

from __future__ import annotations

import threading
import time

from unbroken._bounded_cache import BoundedCache


def test_what_is_remembered_is_bounded_and_the_newest() -> None:
    recent: BoundedCache[int, str] = BoundedCache(3)
    for number in range(10):
        recent.put(number, str(number))
    assert recent == {7: "7", 8: "8", 9: "9"}
    recent.discard(8)
    recent.discard(8)
    assert list(recent) == [7, 9]


def test_threads_that_remember_at_once_do_not_disturb_each_other() -> None:
    class Interrupted(BoundedCache[int, int]):
        """Stands for a thread that is interrupted before it drops the oldest entry."""

        def popitem(self, last: bool = True) -> tuple[int, int]:
            if not inside.is_set():
                inside.set()
                time.sleep(0.2)
            return super().popitem(last)

    inside, recent, errors = threading.Event(), Interrupted(1), list[BaseException]()
    recent.put(0, 0)

    def first() -> None:
        try:
            recent.put(1, 1)
        except (RuntimeError, KeyError) as error:
            errors.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    recent.put(2, 2)
    thread.join()
    assert errors == []
    assert recent == {2: 2}
