"""An SDK that takes an HTTP client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.docs.examples.shop import TOKENS, Shop
from unbroken import Session

if TYPE_CHECKING:
    import openai  # half a second, which only the process that runs these tests spends


def ask(client: openai.OpenAI) -> str | None:
    response = client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Who am I?"}])
    return response.choices[0].message.content


@pytest.fixture
def sdk(shop: Shop, login: Session) -> Iterator[openai.OpenAI]:
    """The SDK, which is not allowed to try anything twice by itself."""
    from examples import openai_client

    with openai_client.connect(login, shop.url + "/v1") as client:
        yield client.with_options(max_retries=0)


def test_the_sdk_outlives_three_tokens(shop: Shop, sdk: openai.OpenAI) -> None:
    for _ in range(TOKENS):
        assert [ask(sdk), ask(sdk)] == ["ada", "ada"]
        shop.time_passes()
    assert len(shop.used["completions"]) == TOKENS


def test_the_sdk_sees_nothing_of_a_token_that_dies_on_the_way(shop: Shop, sdk: openai.OpenAI) -> None:
    for _ in range(TOKENS):
        shop.dies_on_the_way = True
        assert ask(sdk) == "ada"
    assert len(shop.used["completions"]) == TOKENS


def test_the_sdk_sees_nothing_of_a_token_that_the_server_ends_early(shop: Shop, sdk: openai.OpenAI) -> None:
    for _ in range(TOKENS):
        assert ask(sdk) == "ada"
        shop.end_all_tokens()
    assert len(shop.used["completions"]) == TOKENS


def test_the_sdk_can_also_ask_for_a_token_itself(shop: Shop, login: Session) -> None:
    import openai

    with openai.OpenAI(base_url=shop.url + "/v1", api_key=login.token, max_retries=0) as client:
        for _ in range(TOKENS):
            assert ask(client) == "ada"
            shop.time_passes()
        assert len(shop.used["completions"]) == TOKENS
        shop.dies_on_the_way = True
        with pytest.raises(openai.AuthenticationError):
            ask(client)
