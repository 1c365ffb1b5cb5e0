"""What a proof must say, and which URLs are one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.server.core.proof import (
    ProofClaims,
    ProofTarget,
    encoded_path,
    normalized_url,
    raw_path_of,
    token_hash,
    why_refused,
)

URL = "https://shop.example.com/orders"
NOW = 1000.0
CLAIMS = ProofClaims("jti", "GET", URL, NOW, token_hash("token"))
TARGET = ProofTarget("GET", (URL,), token_hash("token"))


def why(made_at: float = NOW, **changed: str) -> str:
    return why_refused(CLAIMS._replace(**changed), TARGET, made_at, NOW, 60.0)  # type: ignore[arg-type]


def test_each_rule_has_its_reason() -> None:
    assert why() == ""
    assert why(method="POST") == "method"
    assert why(url=URL + "/1") == "url"
    assert why(token_hash=token_hash("another")) == "access_token"
    assert [why(NOW - age) for age in (60.0, 60.1, -30.0, -30.1)] == ["", "too_old", "", "too_new"]


def test_a_short_window_is_short_in_both_directions() -> None:
    assert why_refused(CLAIMS, TARGET, NOW + 6.0, NOW, 5.0) == "too_new"


def test_without_an_access_token_no_hash_is_asked_for() -> None:
    assert why_refused(CLAIMS._replace(token_hash=""), TARGET._replace(token_hash=""), NOW, NOW, 60.0) == ""


def test_the_hash_of_a_token_is_that_of_the_rfc() -> None:
    token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
    assert token_hash(token) == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"  # RFC 9449 §7.1, figure 13


SAME = [
    ("HTTPS://Shop.Example.COM/orders", URL),
    ("https://shop.example.com:443/orders", URL),
    ("https://shop.example.com:/orders", URL),
    ("http://shop.example.com:80", "http://shop.example.com/"),
    ("https://shop.example.com/%6frders?a=b#c", URL),
    ("https://shop.example.com/a%2fb", "https://shop.example.com/a%2Fb"),
    ("https://[::1]:443/x", "https://[::1]/x"),
]


@pytest.mark.parametrize(("url", "same"), SAME)
def test_other_spellings_of_a_url_are_normalized(url: str, same: str) -> None:
    assert normalized_url(url) == same


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "/orders",
            "shop.example.com",
            "ftp://x/",
            "https://",
            "https://a@x/",
            "https://x:99999/",
            "https://x:y/",
        ),
        *("https://x/ö", "https://x/a b", "https://x/\\a", "https://[::1/", "wss://x/", "https://x/\0", "javascript:x"),
    ],
)
def test_what_is_no_url_of_a_request_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        normalized_url(url)


def test_the_handshake_of_a_websocket_has_two_schemes() -> None:
    assert normalized_url("wss://x/live", is_websocket=True) == "https://x/live"
    assert normalized_url("ws://x:80/live", is_websocket=True) == "http://x/live"


@given(st.text())
def test_any_text_is_one_url_or_a_value_error(text: str) -> None:
    for url in (text, f"https://{text}", f"https://x/{text}"):
        try:
            once = normalized_url(url)
        except ValueError:
            continue
        assert normalized_url(once) == once


@pytest.mark.parametrize(
    ("target", "path", "raw"),
    [
        ("/a%20b?x=1", "/a b", "/a%20b"),
        ("/a%2Fb", "/a/b", "/a%2Fb"),
        ("https://x.example/a%20b?y", "/a b", "/a%20b"),
        ("/b", "/api/b", ""),
        ("", "/b", ""),
        ("*", "/b", ""),
    ],
)
def test_the_path_as_it_was_sent_counts_if_it_means_the_path(target: str, path: str, raw: str) -> None:
    assert raw_path_of(target, path) == raw


def test_a_decoded_path_is_encoded_as_clients_do() -> None:
    assert encoded_path("/a b/é/it's(1)?#%") == "/a%20b/%C3%A9/it's(1)%3F%23%25"
