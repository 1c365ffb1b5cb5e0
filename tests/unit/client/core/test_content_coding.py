"""Content codings, undone to a bound."""

from __future__ import annotations

import gzip
import zlib
from functools import partial

import pytest

from unbroken.client.core.content_coding import MAX_CODINGS, decode_body

TEXT = b'{"code": 401}'


# Without the time, so that the names of cases are the same in each process.
gzipped = partial(gzip.compress, mtime=0)


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return coder.compress(data) + coder.flush()


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (TEXT, ""),
        (TEXT, "identity"),
        (gzipped(TEXT), "gzip"),
        (gzipped(TEXT), "X-GZIP"),
        (gzipped(TEXT[:5]) + gzipped(TEXT[5:]), "gzip"),
        (zlib.compress(TEXT), "deflate"),
        (raw_deflate(TEXT), "deflate"),
        (gzipped(zlib.compress(TEXT)), "deflate, gzip"),
    ],
)
def test_a_body_is_decoded_by_its_codings_the_last_first(body: bytes, coding: str) -> None:
    assert decode_body(body, coding, 1 << 20) == (TEXT, True)


def test_no_more_is_decoded_than_was_asked_for() -> None:
    bomb = gzipped(bytes(50 << 20))
    assert decode_body(bomb, "gzip", 1000) == (bytes(1000), False)


@pytest.mark.parametrize(
    ("body", "coding"),
    [(TEXT, "gzip"), (TEXT, "unknown"), (gzipped(TEXT), ", ".join(["gzip"] * (MAX_CODINGS + 1)))],
    ids=["not_gzip", "unknown", "too_many"],
)
def test_a_body_that_cannot_be_decoded_is_empty_and_not_whole(body: bytes, coding: str) -> None:
    assert decode_body(body, coding, 1 << 20) == (b"", False)
