"""A body is sent again byte for byte, or not at all."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.adapters.api import PIXELS, Api, sha, used
from tests.support.adapters import MORE_ADAPTERS, Client
from unbroken import (
    Session,
)
from unbroken.testing import ManualClock

BODIES: dict[str, Callable[[], dict[str, Any]]] = {
    "bytes": lambda: {"content": PIXELS},
    "JSON": lambda: {"json": {"text": "grüße", "numbers": [1, 2.5]}},
    "a form": lambda: {"form": {"name": "ä b", "x": "1"}},
}


# The async clients of httpx and httpx2 take no files as a body. httpx, unlike httpx2, announces the whole length of a
# stream that stands in its middle, so it cannot send the rest of one at all.
STREAMS = [("httpx2", 1000), ("httpx", 0), ("requests", 1000), ("aiohttp", 1000)]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_is_sent_again_byte_for_byte(server: Api, client: Client, body: Callable[[], dict[str, Any]]) -> None:
    assert client.request("POST", server.url + "/echo", **body()).status == 200
    server.expire()
    assert client.request("POST", server.url + "/echo", **body()).status == 200
    assert len(server.bodies) == 2
    assert server.bodies[0] == server.bodies[1] != sha(b"")


@pytest.mark.parametrize(("connect", "start"), STREAMS, indirect=["connect"])
def test_a_stream_is_sent_again_from_where_it_stood(server: Api, client: Client, start: int) -> None:
    server.expire()
    stream = io.BytesIO(PIXELS)
    stream.seek(start)
    assert client.request("PUT", server.url + "/echo", content=stream).status == 200
    assert server.bodies == [sha(PIXELS[start:])]


@pytest.mark.parametrize(("connect", "start"), STREAMS, indirect=["connect"])
def test_an_open_file_is_sent_again_from_where_it_stood(
    server: Api, client: Client, tmp_path: Path, start: int
) -> None:
    (tmp_path / "pixels").write_bytes(PIXELS)
    server.expire()
    with (tmp_path / "pixels").open("rb") as file:
        file.seek(start)
        assert client.request("PUT", server.url + "/echo", content=file).status == 200
    assert server.bodies == [sha(PIXELS[start:])]


NOTE = (None, "grüße,\r\nfrom here")  # a field that is no file


def test_an_upload_of_files_is_sent_again_whole(server: Api, client: Client) -> None:
    server.expire()
    files = {"note": NOTE, "file": ("pixels", io.BytesIO(PIXELS)), "other": ("other", io.BytesIO(b"x"))}
    assert client.request("POST", server.url + "/upload", files=files).status == 200
    whole = {"note": NOTE[1], "file": ("pixels", sha(PIXELS)), "other": ("other", sha(b"x"))}
    assert server.uploads == [whole, whole]
    assert server.refreshes == 1


# httpx and httpx2 send every file of an upload from its beginning, wherever it stood.
@pytest.mark.parametrize(
    ("connect", "start"),
    [(name, 1000 if name in ("requests", "aiohttp") else 0) for name in MORE_ADAPTERS],
    indirect=["connect"],
)
def test_an_open_file_in_an_upload_is_sent_again_as_it_was_sent_first(
    server: Api, client: Client, tmp_path: Path, start: int
) -> None:
    (tmp_path / "pixels").write_bytes(PIXELS)
    server.expire()
    with (tmp_path / "pixels").open("rb") as file:
        file.seek(1000)
        files = {"note": NOTE, "file": ("pixels", file)}
        assert client.request("POST", server.url + "/upload", files=files).status == 200
    assert server.uploads == [{"note": NOTE[1], "file": ("pixels", sha(PIXELS[start:]))}] * 2


class Pipe(io.RawIOBase):
    """Can be read once, and not be wound back."""

    def __init__(self) -> None:
        self._rest = io.BytesIO(PIXELS)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._rest.readinto(buffer)


@pytest.mark.parametrize("connect", [name for name in MORE_ADAPTERS if name != "requests"], indirect=True)
def test_an_upload_that_cannot_be_wound_back_is_sent_once_and_whole(server: Api, client: Client) -> None:
    server.expire()
    refused = client.request("POST", server.url + "/upload", files={"note": NOTE, "file": ("pixels", Pipe())})
    assert refused.status == 401
    assert "only once" in str(refused.why_not_replayed)
    assert server.uploads == [{"note": NOTE[1], "file": ("pixels", sha(PIXELS))}], "never twice, and never empty"
    assert server.refreshes == 1, "the session is refreshed, so that the next request works"
    again = client.request("POST", server.url + "/upload", files={"note": NOTE, "file": ("pixels", Pipe())})
    assert (again.status, server.uploads[1]) == (200, server.uploads[0])


@pytest.mark.parametrize("connect", ["requests"], indirect=True)
def test_requests_keeps_what_it_read_of_a_pipe_and_can_send_it_again(server: Api, client: Client) -> None:
    server.expire()
    files = {"note": NOTE, "file": ("pixels", Pipe())}
    assert client.request("POST", server.url + "/upload", files=files).status == 200
    assert server.uploads == [{"note": NOTE[1], "file": ("pixels", sha(PIXELS))}] * 2


class Spent:
    """Looks like a collection, and can be read once: like a wrapper that shows progress."""

    def __init__(self) -> None:
        self._rest = [b"a", b"b"]

    def __iter__(self) -> Iterator[bytes]:
        while self._rest:
            yield self._rest.pop(0)


ONCE: dict[str, Callable[[], Any]] = {
    "a generator": lambda: (chunk for chunk in [b"a", b"b"]),
    "an iterator": lambda: iter([b"a", b"b"]),
}


@pytest.mark.parametrize("body", ONCE.values(), ids=ONCE)
def test_a_body_that_can_be_sent_once_is_never_sent_twice_nor_empty(
    server: Api, client: Client, body: Callable[[], Any]
) -> None:
    server.expire()
    refused = client.request("POST", server.url + "/echo", content=body())
    assert refused.status == 401
    assert len(server.seen) == 1
    assert refused.why_not_replayed is not None
    assert "only once" in str(refused.why_not_replayed)
    assert server.refreshes == 1, "the session is refreshed, so that the next request works"
    assert client.request("POST", server.url + "/echo", content=body()).json["length"] == 2


@pytest.mark.parametrize("connect", ["httpx2", "httpx", "requests"], indirect=True)  # the others take no such body
def test_a_body_that_only_looks_like_a_collection_is_sent_once(server: Api, client: Client) -> None:
    server.expire()
    assert client.request("POST", server.url + "/echo", content=Spent()).status == 401
    assert len(server.seen) == 1


def test_before_a_body_that_can_be_sent_once_an_ageing_token_is_refreshed(
    server: Api, client: Client, session: Session, clock: ManualClock
) -> None:
    old = session.token()
    clock.advance(1700)
    assert client.request("POST", server.url + "/echo", content=iter([b"a"])).status == 200
    assert old not in used(server)
    assert server.refreshes == 1


def test_a_body_that_could_not_be_sent_again_while_refresh_fails(server: Api, client: Client) -> None:
    server.expire()
    for _ in range(3):
        server.fail_next(500)
    refused = client.request("POST", server.url + "/echo", content=iter([b"a"]))
    assert refused.status == 401
    assert "could not be refreshed" in str(refused.why_not_replayed)
