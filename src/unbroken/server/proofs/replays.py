"""Each proof is good once (RFC 9449 §11.1): the proofs of the last minute, as one process remembers them.

1. A proof is remembered until it is too old to be accepted: by a hash of its key and its ``jti``, 16 bytes. So a client
   cannot use up another's ``jti``.
2. The memory is bounded: ``MAX_REMEMBERED_PROOFS``, in about 14 megabytes. When it is full, the proofs of the oldest
   second are forgotten, and others of that time are too old from then on. So a flood makes the window shorter, and
   never lets a proof pass twice.
3. Only proofs that came with a genuine token are remembered: no stranger can fill the memory.
4. Other processes remember their own. Where it matters, a marker in the store counts for all of them
   (``verification.py`` rule 4).
"""

from __future__ import annotations

import threading

__all__ = ["MAX_REMEMBERED_PROOFS", "ReplayCache"]

MAX_REMEMBERED_PROOFS = 100_000


class ReplayCache:
    """The proofs that were used, for any number of threads."""

    def __init__(self, max_remembered: int = MAX_REMEMBERED_PROOFS) -> None:
        self._max_remembered = max_remembered
        self._used: set[bytes] = set()
        self._by_second: dict[int, list[bytes]] = {}  # the same, by the second in which they were made
        self._floor = 0  # proofs of earlier seconds are too old (rule 2)
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Replace the lock. What the parent has remembered stays."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._used)

    def is_too_old(self, made_at: float) -> bool:
        """Return whether proofs of that time may have been forgotten (rule 2)."""
        return int(made_at) < self._floor

    def is_used(self, proof_id: bytes) -> bool:
        """Return whether this proof was added."""
        return proof_id in self._used

    def add(self, proof_id: bytes, made_at: float, oldest: float) -> bool:
        """Remember a proof, and return whether that counts: it is new, and not too old. Those made before *oldest* are
        forgotten.
        """
        second = int(made_at)
        with self._lock:
            if second < self._floor or proof_id in self._used:
                return False
            if second not in self._by_second:
                self._forget_before(int(oldest))
                self._by_second[second] = []
            self._used.add(proof_id)  # rule 1
            self._by_second[second].append(proof_id)
            while len(self._used) > self._max_remembered:
                self._forget_before(min(self._by_second) + 1)
            return proof_id in self._used

    def _forget_before(self, second: int) -> None:
        self._floor = max(self._floor, second)
        for old in [one for one in self._by_second if one < second]:
            self._used.difference_update(self._by_second.pop(old))
