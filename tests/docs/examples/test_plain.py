"""Scripts and commands, with nothing but the standard library."""

from __future__ import annotations

import json
import os
import sys

import pytest

from examples import plain_python
from tests.docs.examples.shop import TOKENS, Shop, opened
from unbroken import Session


def test_urllib_outlives_three_tokens(shop: Shop, login: Session) -> None:
    for _ in range(TOKENS):
        assert json.loads(plain_python.get(login, shop.url + "/orders")) == {"orders of": "ada"}
        shop.time_passes()
    assert len(set(shop.used["orders"])) == TOKENS


def test_urllib_hands_no_token_on_to_where_a_redirect_leads(shop: Shop, login: Session) -> None:
    with opened(Shop()) as other:
        with pytest.raises(plain_python.urllib.request.HTTPError, match="401") as raised:
            plain_python.get(login, f"{shop.url}/redirect?to={other.url}/orders")
        raised.value.close()
    assert other.used["orders"] == [""]


def test_a_command_finds_the_token_of_its_moment_in_its_environment(shop: Shop, login: Session) -> None:
    command = [sys.executable, "-I", "-S", "-c", "import os; print(os.environ['API_TOKEN'], end='')"]
    tokens = []
    for _ in range(TOKENS):
        tokens.append(plain_python.run(login, command))
        assert shop.sessions.verify(tokens[-1]).subject == "ada"
        shop.time_passes()
    assert len(set(tokens)) == TOKENS
    assert "API_TOKEN" not in os.environ
