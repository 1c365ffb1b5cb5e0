"""gRPC calls outlive their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest

from examples import grpc_calls
from tests.docs.examples.shop import TOKENS, Shop, calls
from unbroken import Session


@pytest.fixture
def orders(shop: Shop, login: Session) -> Iterator[Callable[[], bytes]]:
    """One call of the shop's gRPC end."""
    with (
        calls(shop, grpc.local_server_credentials()) as port,
        grpc_calls.channel(f"127.0.0.1:{port}", login) as channel,
    ):
        method = channel.unary_unary("/shop.Orders/List")
        yield lambda: method(b"", timeout=10)


def test_grpc_calls_outlive_three_tokens(shop: Shop, orders: Callable[[], bytes]) -> None:
    for _ in range(TOKENS):
        assert [orders(), orders()] == [b"the orders of ada"] * 2
        shop.time_passes()
    assert len(shop.used["calls"]) == TOKENS


def test_a_grpc_call_whose_token_dies_on_the_way_is_made_again(shop: Shop, orders: Callable[[], bytes]) -> None:
    for _ in range(TOKENS):
        shop.dies_on_the_way = True
        assert orders() == b"the orders of ada"
    assert len(shop.used["calls"]) == TOKENS, "each token but the first was got by the second try of a call"


def test_a_grpc_call_is_made_again_only_once(shop: Shop, orders: Callable[[], bytes]) -> None:
    shop.sessions.revoke_subject("ada")
    seen: list[str] = []
    shop.good = lambda token, what: bool(seen.append(token))
    with pytest.raises(grpc.RpcError) as raised:
        orders()
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(seen) == 2


def test_a_grpc_call_without_a_session_fails_with_the_reason(
    shop: Shop, login: Session, orders: Callable[[], bytes]
) -> None:
    shop.sessions.revoke_subject("ada")
    shop.time_passes()
    with pytest.raises(grpc.RpcError, match="revoked; log in again") as raised:
        orders()
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (login.status.state, login.status.reason) == ("over", "revoked")
