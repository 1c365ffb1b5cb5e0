"""Inputs that are nearly right: seeds, changed a little, the same for the same number."""

from __future__ import annotations

import random
from collections.abc import Iterator

__all__ = ["mutations"]

PIECES = (
    b"\0", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\\ud800", b"\xef\xbb\xbf", b"\r\n", b"\x1b[2J", b"NaN", b"Infinity",
    b"1e999", b"-1", b"9" * 20, b"9" * 5000, b"0x10", b"true", b"null", b"[" * 2000, b'{"a":' * 500, b'"', b"\\", b",",
    b";", b"=", b":", b"%", b"&", b" " * 300, b"\xb2", b"\xe0", b"[::1", b"@", b"..",
    b"Thu, 32 Foo 99999 99:99:99 +99999",
)  # fmt: skip
MAX_BYTES = 20_000


def mutations(seeds: tuple[bytes, ...], count: int, seed: int) -> Iterator[bytes]:
    """Yield *count* inputs."""
    dice = random.Random(seed)
    for _ in range(count):
        data = bytearray(dice.choice(seeds) if dice.random() < 0.9 else dice.randbytes(dice.randrange(60)))
        for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 6))):
            _change(data, dice, seeds)
        yield bytes(data[:MAX_BYTES])


def _change(data: bytearray, dice: random.Random, seeds: tuple[bytes, ...]) -> None:
    at = dice.randrange(len(data) + 1)
    match dice.randrange(7):
        case 0:
            data[at:at] = dice.choice(PIECES)
        case 1:
            del data[at : at + dice.choice((1, 2, 8, 50))]
        case 2:
            data[at : at + 1] = dice.randbytes(1)
        case 3:
            data[at:at] = data[at : at + dice.choice((1, 4, 20))] * dice.choice((2, 3, 30))
        case 4:
            other = dice.choice(seeds)
            data[at:] = other[dice.randrange(len(other) + 1) :]
        case 5:
            data[at : at + dice.randrange(12)] = dice.choice(PIECES)
        case _:
            data[at : at + 1] = bytes([data[at] ^ 1 << dice.randrange(8)]) if at < len(data) else b""
