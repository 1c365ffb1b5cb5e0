"""Dialects refuse values that cannot work, by name, when they are made."""

from __future__ import annotations

from typing import Any

import pytest

from unbroken import ConfigurationError, Dialect, RequestTemplate, ResponseMatch, TokenFields, oauth2, unbroken_server

URL = "https://api.example/token"


def template(**settings: Any) -> RequestTemplate:
    return RequestTemplate(**{"url": URL, **settings})


def dialect(**settings: Any) -> Dialect:
    return Dialect(**{"refresh": template(), **settings})


WRONG: dict[str, Any] = {
    "RequestTemplate.url": lambda: template(url=""),
    "RequestTemplate.url must be a URL": lambda: template(url=None),
    "RequestTemplate.method": lambda: template(method="PO ST"),
    "RequestTemplate.encoding must be one of form, json, query, header": lambda: template(encoding="xml"),
    "RequestTemplate.rename must be a mapping": lambda: template(rename=["refresh_token"]),
    "RequestTemplate.rename must map text": lambda: template(rename={"refresh_token": 5}),
    "RequestTemplate.headers must map text": lambda: template(headers={"x": 5}),
    "RequestTemplate.extra must be a mapping": lambda: template(extra="grant_type"),
    "ResponseMatch.status must have HTTP statuses": lambda: ResponseMatch.of(20),
    "ResponseMatch.status must be a frozenset": lambda: ResponseMatch(401),  # type: ignore[arg-type]
    "not '401'": lambda: ResponseMatch.of("401"),  # type: ignore[arg-type]
    "name it in field=": lambda: ResponseMatch.of(200, values=(401,)),
    "takes values as a tuple": lambda: ResponseMatch.of(200, field="code", values="401"),  # type: ignore[arg-type]
    "TokenFields.access_token must not be empty": lambda: TokenFields(""),
    "TokenFields.refresh_token must be a dotted path": lambda: TokenFields(refresh_token=None),  # type: ignore[arg-type]
    "TokenFields.scope must be a dotted path": lambda: TokenFields(scope="data..scope"),
    "Dialect.refresh must be a RequestTemplate": lambda: Dialect(refresh=URL),  # type: ignore[arg-type]
    "Dialect.repeated_refresh must be one of learn, idempotent, forgiving, strict": lambda: dialect(
        repeated_refresh="lenient"
    ),
    "not None": lambda: oauth2(URL, repeated_refresh=None),  # type: ignore[arg-type]
    "Dialect.login must be a RequestTemplate": lambda: dialect(login=URL),
    "Dialect.ends_session must be a ResponseMatch": lambda: dialect(ends_session=401),
    "Dialect.challenge must be a ResponseMatch": lambda: dialect(challenge=401),
    "Dialect.tokens must be TokenFields": lambda: dialect(tokens="access_token"),
    "Dialect.header must be the name of a header": lambda: dialect(header="X Token"),
    "Dialect.scheme must be text": lambda: dialect(scheme=5),
    "Dialect.origins must be a tuple": lambda: dialect(origins="https://api.example"),
    "Dialect.body_types must be a tuple": lambda: dialect(body_types="application/json"),
    "Dialect.max_body_bytes must be a positive number": lambda: dialect(max_body_bytes=0),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_value_that_cannot_work_is_refused_by_name(message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        WRONG[message]()


def test_a_repr_shows_no_secret() -> None:
    made = dialect(refresh=template(extra={"client_secret": "s3cret"}, headers={"authorization": "Basic s3cret"}))
    assert "s3cret" not in repr(made)


def test_the_right_values_of_a_dialect_are_taken() -> None:
    assert dialect(challenge=lambda response: response.status == 418, scheme=None, login=template()).scheme is None
    assert unbroken_server("https://api.example").origins == ("https://api.example",)
