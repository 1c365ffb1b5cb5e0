"""What a Session takes, as it is given: checked, and made into values."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from unbroken._http import Origin, is_token, origin_of
from unbroken.client.core.backends import unbroken_server
from unbroken.client.core.dialect import Dialect
from unbroken.client.core.proof import htu_of
from unbroken.client.core.schedule import Leeway, RefreshWindow
from unbroken.client.core.token_store import TokenStore
from unbroken.client.stores import open_token_store
from unbroken.client.stores.memory import MemoryStore
from unbroken.errors import ConfigurationError, InvalidRequest
from unbroken.tokens import TokenResponse, Tokens

__all__ = ["check_settings", "to_dialect", "to_htu", "to_store", "to_token_response"]

STORE_METHODS = ("load", "save", "lock")
WEBSOCKET_SCHEMES = {"ws": "http", "wss": "https"}


def to_dialect(dialect: object) -> Dialect:
    """Return *dialect*, or that of unbroken's own server at a URL. Raise ConfigurationError."""
    if isinstance(dialect, Dialect):
        return dialect
    if isinstance(dialect, str):
        return unbroken_server(dialect)
    raise ConfigurationError(
        "a Session begins with the URL of an unbroken server, or with a dialect such as "
        f"unbroken.oauth2(token_endpoint), not {dialect!r}"
    )


def to_store(store: object) -> TokenStore:
    """Return *store*, or the one that a path or a URL names; memory for None. Raise ConfigurationError."""
    if store is None:
        return MemoryStore()
    if isinstance(store, (str, os.PathLike)):
        return open_token_store(store)
    if isinstance(store, type) or not all(callable(getattr(store, name, None)) for name in STORE_METHODS):
        raise ConfigurationError(
            f"store must be a token store, such as FileStore(path), or a path or URL that open_token_store "
            f"understands, not {store!r}"
        )
    return store  # type: ignore[return-value]  # it has the methods of a TokenStore


def check_settings(origins: object, leeway: object, window: object) -> None:
    """Raise ConfigurationError for settings that cannot work."""
    if isinstance(origins, (str, bytes)) or not isinstance(origins, Iterable):
        raise ConfigurationError(f"origins must be a list of URLs, not one text: origins=[{origins!r}]")
    if not isinstance(leeway, Leeway):
        raise ConfigurationError(f"leeway must be a Leeway(...), not {leeway!r}")
    if window is not None and not isinstance(window, RefreshWindow):
        raise ConfigurationError(f"window must be a RefreshWindow(...) or None, not {window!r}")


def to_token_response(tokens: TokenResponse | Tokens | Mapping[str, object], dialect: Dialect) -> TokenResponse:
    """Return *tokens* as a token response. Raise BadResponse, which names the field."""
    if isinstance(tokens, TokenResponse):
        return tokens
    if isinstance(tokens, Tokens):
        return TokenResponse(
            tokens.access_token,
            tokens.refresh_token,
            tokens.expires_in,
            tokens.refresh_expires_in,
            tokens.refresh_seq,
            tokens.scope,
            tokens.token_type,
            tokens.received_at or None,
            jkt=tokens.jkt,
        )
    return TokenResponse.from_response(tokens, dialect.tokens)


def to_htu(method: str, url: str, origins: frozenset[Origin]) -> str:
    """Return *url* as a proof names it. Raise InvalidRequest unless a request to it gets a token."""
    try:
        scheme, separator, rest = url.partition("://")
        origin = origin_of(WEBSOCKET_SCHEMES.get(scheme, scheme) + separator + rest)
    except ConfigurationError as error:
        raise InvalidRequest(f"url: {error}") from None
    if origin not in origins:
        raise InvalidRequest(f"url: {origin} is not an origin of this session, and gets no token")
    if not is_token(method):
        raise InvalidRequest("method must be one of HTTP, such as GET")
    return htu_of(url)
