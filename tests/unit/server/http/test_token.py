"""Spellings of the header ``Idempotency-Key``."""

from __future__ import annotations

import pytest

from unbroken.server.http.token import read_idempotency_key


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ('"a"', "a"),
        ("a", "a"),
        ('  "a"  ', "a"),
        ('"a";n=1;s="x;\\"y"', "a"),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"1,2,3"', "1,2,3"),
        (r'"a \"quoted\" \\ key"', r'a "quoted" \ key'),
        ("YWJj+/=", "YWJj+/="),
    ],
)
def test_a_string_and_the_same_text_without_quotes_are_one_key(header: str, key: str) -> None:
    assert read_idempotency_key(header) == key


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        '""',
        '"a',
        'a"',
        '"a" "a"',
        '"a", "a"',
        "a, a",
        "a b",
        r'"\a"',
        '"\xe9"',
        "\xe9",
        '"\n"',
        ";x",
        '"a";=1',
    ],
)
def test_anything_else_is_no_key(header: str | None) -> None:
    assert read_idempotency_key(header) is None
