"""Token responses and challenges as data, for every language that reads them; our server's own are among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.faces import Wire
from unbroken._http import HttpResponse, parse_challenges
from unbroken.client.core.dialect import is_bearer_challenge
from unbroken.errors import BadResponse, InvalidToken
from unbroken.server.http.messages import challenge
from unbroken.tokens import TokenResponse


def vectors(name: str) -> list[Any]:
    cases = json.loads((Path(__file__).parent / "vectors" / f"{name}.json").read_text(encoding="utf-8"))
    return [pytest.param(case, id=case["name"]) for case in cases]


@pytest.mark.parametrize("case", vectors("token_responses"))
def test_a_token_response_is_read_as_the_vector_says(case: dict[str, Any]) -> None:
    if "bad_field" in case:
        with pytest.raises(BadResponse) as caught:
            TokenResponse.from_response(case["body"])
        assert caught.value.field == case["bad_field"]
        return
    granted = TokenResponse.from_response(case["body"])
    said = {"unreadable_fields": [], **case["tokens"]}
    assert {name: getattr(granted, name) for name in said} == {
        **said,
        "unreadable_fields": tuple(said["unreadable_fields"]),
    }


@pytest.mark.parametrize("case", vectors("challenges"))
def test_a_challenge_is_read_as_the_vector_says(case: dict[str, Any]) -> None:
    headers = {} if case["header"] is None else {"www-authenticate": case["header"]}
    assert is_bearer_challenge(HttpResponse(case["status"], headers)) is case["refresh"]
    parameters = dict(parse_challenges(case["header"] or "")).get("bearer", {})
    assert (parameters.get("error"), parameters.get("reason")) == (case.get("error"), case.get("reason"))


def test_our_servers_challenges_are_the_vectors_called_our_own() -> None:
    ours = {case.values[0]["header"] for case in vectors("challenges") if case.values[0]["name"].startswith("our own")}
    answers = [
        challenge(InvalidToken("the access token has expired", reason="expired")),
        challenge(InvalidToken("the access token was revoked", reason="revoked")),
        challenge(None),
        challenge(None, scope="reports"),
    ]
    assert {answer.headers["www-authenticate"] for answer in answers} == ours


def test_our_servers_token_response_reads_back_whole(wire: Wire) -> None:
    body = wire.login(scope="read")
    assert TokenResponse.from_response(body).to_response() == body
