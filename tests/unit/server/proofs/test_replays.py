"""The memory of proofs: bounded, exact, and safe for threads."""

from __future__ import annotations

import threading

from unbroken.server.proofs.replays import MAX_REMEMBERED_PROOFS, ReplayCache


def identity(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_a_proof_counts_once() -> None:
    cache = ReplayCache()
    assert cache.add(identity(1), 100.0, 40.0)
    assert cache.is_used(identity(1))
    assert not cache.add(identity(1), 100.0, 40.0)
    assert not cache.add(identity(1), 130.0, 70.0), "also if its client signs it once more with another time"
    assert cache.add(identity(2), 100.9, 40.0)


def test_old_proofs_are_forgotten_and_then_too_old() -> None:
    cache = ReplayCache()
    for second in range(300):
        assert cache.add(identity(second), float(second), second - 60.0)
    assert len(cache) == 61
    assert cache.is_too_old(200.0)
    assert not cache.add(identity(200), 200.0, 240.0)
    assert not cache.is_too_old(299.0)


def test_a_full_memory_makes_the_window_shorter() -> None:
    cache = ReplayCache(10)
    for number in range(100):
        assert cache.add(identity(number), 100.0 + number, 40.0)
    assert len(cache) <= 10
    assert [number for number in range(100) if not cache.is_too_old(100.0 + number)] == list(range(90, 100))
    assert not any(cache.add(identity(number), 100.0 + number, 40.0) for number in range(100))


def test_a_second_that_alone_fills_the_memory_is_over() -> None:
    cache = ReplayCache(10)
    counted = sum(cache.add(identity(number), 100.0, 40.0) for number in range(20))
    assert counted == 10
    assert cache.is_too_old(100.0)
    assert cache.add(identity(99), 101.0, 41.0)


def test_of_many_threads_one_is_the_first() -> None:
    cache, counted = ReplayCache(), list[bool]()
    barrier = threading.Barrier(8)

    def use() -> None:
        barrier.wait()
        counted.extend(cache.add(identity(number), 100.0, 40.0) for number in range(1000))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counted) == 1000


def test_the_memory_costs_what_is_said() -> None:
    import tracemalloc

    cache = ReplayCache()
    tracemalloc.start()
    for number in range(MAX_REMEMBERED_PROOFS):
        cache.add(identity(number), 100.0 + number % 60, 40.0)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 14_000_000
