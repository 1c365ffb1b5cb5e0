"""Which request bodies may be sent a second time."""

from __future__ import annotations

import io

import pytest

from unbroken.client.core.body import rewinder


def test_a_seekable_body_is_wound_back_to_where_it_stood() -> None:
    file = io.BytesIO(b"abcdef")
    file.seek(2)
    rewind = rewinder(file)
    assert rewind is not None
    assert file.read() == b"cdef"
    rewind()
    assert file.read() == b"cdef"


@pytest.mark.parametrize("body", [iter([b"a"]), (x for x in [b"a"]), object(), 7, map(bytes, [])])
def test_a_body_that_is_not_known_to_repeat_is_sent_once(body: object) -> None:
    assert rewinder(body) is None


def test_a_closed_file_and_a_pipe_are_sent_once() -> None:
    closed = io.BytesIO(b"")
    closed.close()
    assert rewinder(closed) is None
    assert rewinder(type("Pipe", (), {"read": lambda self: b"", "seekable": lambda self: False})()) is None
