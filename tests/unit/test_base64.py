"""base64url in its one canonical spelling (RFC 4648 §5)."""

from __future__ import annotations

import secrets

import pytest

from unbroken import _base64


@pytest.mark.parametrize("size", range(20))
def test_base64url_is_decoded_to_the_bytes_it_was_encoded_from(size: int) -> None:
    data = secrets.token_bytes(size)
    assert _base64.decode(_base64.encode(data)) == data
    assert _base64.encode_to_bytes(data).decode() == _base64.encode(data)


def test_the_alphabet_is_that_of_urls() -> None:
    assert (_base64.encode(b"\xfb\xff\xfe"), _base64.decode("-__-")) == ("-__-", b"\xfb\xff\xfe")


OTHER_SPELLINGS = {
    "padding": "AA==",
    "standard alphabet": "+//+",
    "unused bits": "AB",
    "white space": "AAAA AAAA",
    "line break": "AAAA\n",
    "foreign character": "AA*AA",
    "not ASCII": "AAAé",
    "impossible length": "AAAAA",
}


@pytest.mark.parametrize("text", OTHER_SPELLINGS.values(), ids=OTHER_SPELLINGS)
def test_noncanonical_base64url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        _base64.decode(text)
