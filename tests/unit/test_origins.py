"""Origins are compared as browsers compare them."""

from __future__ import annotations

import pytest

from unbroken import ConfigurationError, Session
from unbroken._origins import origin_of


def test_origins_are_compared_parsed() -> None:
    assert origin_of("https://a.example/x") == origin_of("https://A.example:443") == ("https", "a.example", 443)
    for bad in ("a.example", "ftp://a.example", "https://", "https://a:99999", "/x"):
        with pytest.raises(ConfigurationError):
            origin_of(bad)


def test_an_international_name_is_the_same_in_both_spellings() -> None:
    session = Session("https://bücher.example")
    assert session.allows_origin("https", "xn--bcher-kva.example", None)
    assert session.allows_origin("https", "bücher.example", None)
    assert Session("https://xn--bcher-kva.example").allows_origin("https", "bücher.example", None)
