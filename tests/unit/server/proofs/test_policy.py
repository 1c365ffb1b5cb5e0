"""The settings of proofs check themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from unbroken.errors import ConfigurationError
from unbroken.server import MemorySessionStore, ProofPolicy, Sessions
from unbroken.server.proofs.policy import valid_policy


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"binding": "always"}, "binding must be one of off, accepted, required: not 'always'"),
        ({"clients": {"app": True}}, "clients must be one of"),
        ({"clients": ["app"]}, "clients must be a dict"),
        ({"clients": {1: "off"}}, "clients must be a dict"),
        ({"replays": "store"}, "replays must be one of process, writes, all"),
        ({"require_nonce": 1}, "require_nonce must be True or False"),
        ({"revoke_without_proof": "no"}, "revoke_without_proof must be True or False"),
        ({"window": 0}, "window"),
        ({"window": 601}, "window is at most 600 seconds"),
        ({"window": "60"}, "window"),
        ({"public_url": "shop.example.com"}, "public_url must be the URL that clients use"),
        ({"public_url": "https://shop.example.com/?x"}, "public_url must be"),
        ({"public_url": ["https://a.example", "wss://b.example"]}, "public_url must be"),
        ({"public_url": "https://ada@shop.example.com"}, "public_url must be"),
        ({"public_url": 5}, "public_url must be a URL, or a list"),
        ({"public_url": [5]}, "public_url must be a URL, or a list"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ProofPolicy(**settings)


def test_a_public_url_is_normalized() -> None:
    assert ProofPolicy(public_url="HTTPS://Shop.example.com:443/api/").public_url == ("https://shop.example.com/api",)
    assert ProofPolicy(public_url="https://bücher.example").public_url == ("https://xn--bcher-kva.example",)
    assert ProofPolicy(public_url=["http://a.example", "https://b.example/"]).public_url == (
        "http://a.example",
        "https://b.example",
    )


def test_a_window_may_be_a_timedelta() -> None:
    assert ProofPolicy(window=timedelta(minutes=1)).window == 60.0


def test_the_policy_of_one_client_may_differ() -> None:
    policy = ProofPolicy("off", clients={"app": "required"})
    assert (policy.binding_of("app"), policy.binding_of("web"), policy.is_off) == ("required", "off", False)
    assert ProofPolicy("off", clients={"app": "off"}).is_off


def test_a_word_is_a_policy_and_anything_else_is_not() -> None:
    assert valid_policy("required").binding == "required"
    for wrong in (True, None, {"binding": "off"}, "on"):
        with pytest.raises(ConfigurationError, match="proofs"):
            Sessions(MemorySessionStore(), proofs=wrong)  # type: ignore[arg-type]
