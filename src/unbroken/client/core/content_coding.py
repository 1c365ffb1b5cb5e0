"""Content codings (RFC 9110 §8.4.1), undone to a bound: a few bytes may stand for gigabytes. Pure.

1. No more is decoded than was asked for, in one piece too: each decoder stops by itself.
2. gzip and deflate are always known; br and zstd where a package for them is installed, which is where the HTTP
   libraries ask servers for them.
3. A body that cannot be decoded raises nothing: the result is empty, and not whole.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

__all__ = ["DecodedBody", "decode_body"]

MAX_CODINGS = 5  # of one body; a server has no use for two
GZIP, ZLIB, RAW_DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class DecodedBody(NamedTuple):
    """The decoded ``data``, as far as it was wanted; ``is_whole``: there is no more of it."""

    data: bytes
    is_whole: bool


UNREADABLE = DecodedBody(b"", False)


def decode_body(body: bytes, content_encoding: str, max_bytes: int) -> DecodedBody:
    """Return at most *max_bytes* of *body* without its codings, whose names *content_encoding* has."""
    codings = [name.strip().lower() for name in content_encoding.split(",") if name.strip()]
    codings = [name for name in codings if name != "identity"]
    if len(codings) > MAX_CODINGS:
        return UNREADABLE
    found = DecodedBody(body, True)
    for coding in reversed(codings):  # the last one was applied last
        decoder = _DECODERS.get(coding)
        if decoder is None or not found.is_whole:
            return UNREADABLE
        found = _decode(decoder, found.data, max_bytes)
    return DecodedBody(found.data[:max_bytes], found.is_whole and len(found.data) <= max_bytes)


def _decode(decoder: Callable[[bytes, int], bytes], data: bytes, max_bytes: int) -> DecodedBody:
    try:
        decoded = decoder(data, max_bytes + 1) if data else b""
    except Exception:  # noqa: BLE001  # each package has errors of its own (rule 3)
        return UNREADABLE
    return DecodedBody(decoded, len(decoded) <= max_bytes)


def _gunzip(data: bytes, size: int) -> bytes:
    """Return at most *size* bytes of all members (RFC 1952 §2.2)."""
    decoded = bytearray()
    while data and len(decoded) < size:
        member = zlib.decompressobj(GZIP)
        decoded += member.decompress(data, size - len(decoded))
        data = member.unused_data
    return bytes(decoded)


def _inflate(data: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj(ZLIB).decompress(data, size)
    except zlib.error:  # some servers leave out the header of RFC 1950
        return zlib.decompressobj(RAW_DEFLATE).decompress(data, size)


def _unbrotli(data: bytes, size: int) -> bytes:
    decoder = _package("brotli", "brotlicffi").Decompressor()
    decode = getattr(decoder, "process", None) or decoder.decompress
    decoded = bytearray(decode(data, output_buffer_limit=size))
    while len(decoded) < size and (piece := decode(b"", output_buffer_limit=size)):
        decoded += piece
    return bytes(decoded[:size])


def _unzstd(data: bytes, size: int) -> bytes:
    package = _package("compression.zstd", "backports.zstd", "zstandard")
    if package.__name__ == "zstandard":
        return package.ZstdDecompressor().stream_reader(data).read(size)  # type: ignore[no-any-return]
    return package.ZstdDecompressor().decompress(data, size)  # type: ignore[no-any-return]


@cache
def _package(*names: str) -> Any:
    """Return the first of these packages that is installed. Raise ImportError without any."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ImportError(f"none of {', '.join(names)} is installed")


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate,
    "br": _unbrotli,
    "zstd": _unzstd,
}
