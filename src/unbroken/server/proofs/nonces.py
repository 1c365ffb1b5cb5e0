"""Nonces that a server gives out for proofs, without remembering them (RFC 9449 §8 and §9).

1. A nonce is the time at which it was made, in steps, and a MAC over it: only this server, or another node with its
   key, can have made it. So a proof with a nonce was made after that time, whatever its client's clock says.
2. A nonce is good for as long as a proof: for *window* seconds. There is a new one six times in that. A node whose
   clock is ahead may have given out the next one already.
3. The key is derived from the newest MAC key of the keyring. A retired key ends its nonces.
4. A nonce that is good and not the newest is replaced in the response (RFC 9449 §8.2).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import NamedTuple, Protocol

from unbroken import _base64

__all__ = ["NonceKey", "NonceKeys", "Nonces", "OwnNonceKey"]

NUMBER_BYTES, STEP_BYTES, MAC_BYTES = 4, 6, 16
STEPS_PER_WINDOW = 6  # in which a nonce is good
PURPOSE = b"unbroken proof nonce"


class NonceKey(Protocol):
    """A key, and its number."""

    @property
    def number(self) -> int: ...
    @property
    def secret(self) -> bytes: ...


class NonceKeys(Protocol):
    """The keys of nonces: a ``Keyring``, or the one of a service of its own."""

    def mac(self, now: float) -> NonceKey:
        """Return the newest key."""

    def mac_key(self, kid: int, now: float) -> bytes | None:
        """Return the secret of the key number *kid*; None if there is none, or if it has ended."""


class _Key(NamedTuple):
    number: int
    secret: bytes


class OwnNonceKey:
    """The one key of a service that has no keyring: *secret* is the same on all of its nodes."""

    def __init__(self, secret: bytes) -> None:
        self._key = _Key(0, secret)

    def mac(self, now: float) -> NonceKey:  # noqa: ARG002  # see ``NonceKeys``
        return self._key

    def mac_key(self, kid: int, now: float) -> bytes | None:  # noqa: ARG002  # see ``NonceKeys``
        return self._key.secret if kid == self._key.number else None


class Nonces:
    """Makes nonces and reads them, under what *keys* returns. A nonce is good for *window* seconds."""

    def __init__(self, keys: Callable[[], NonceKeys], window: float) -> None:
        self._keys, self._step = keys, window / STEPS_PER_WINDOW

    def newest(self, now: float) -> str:
        """Return the nonce of *now*."""
        key = self._keys().mac(now)  # rule 3
        message = key.number.to_bytes(NUMBER_BYTES) + int(now // self._step).to_bytes(STEP_BYTES)
        return _base64.encode(message + _mac(key.secret, message))  # rule 1

    def made_at(self, nonce: str, now: float) -> float | None:
        """Return when the step of *nonce* began; None unless it is a good nonce at *now* (rule 2)."""
        try:
            raw = _base64.decode(nonce)
            message, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
            number, step = int.from_bytes(message[:NUMBER_BYTES]), int.from_bytes(message[NUMBER_BYTES:])
        except ValueError:
            return None
        secret = self._keys().mac_key(number, now)
        if len(message) != NUMBER_BYTES + STEP_BYTES or secret is None:
            return None
        age_steps = int(now // self._step) - step
        if not hmac.compare_digest(_mac(secret, message), mac) or not -1 <= age_steps < STEPS_PER_WINDOW:
            return None
        return step * self._step


def _mac(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(hmac.digest(secret, PURPOSE, "sha256"), message, "sha256")[:MAC_BYTES]
