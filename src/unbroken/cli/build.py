"""From settings to what they name: the store, the sessions, what the endpoints are told. And what cannot be.

``contradictions`` says all at once what is wrong; everything else raises ConfigurationError for the first thing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any, cast
from urllib.parse import urlsplit

from unbroken.cli.settings import Settings
from unbroken.errors import ConfigurationError
from unbroken.server import Policy, RateLimitPolicy, Webhook, open_store
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.origins import AllowedOrigins
from unbroken.server.http.settings import EndpointOptions
from unbroken.server.stores import SessionStore, store_type
from unbroken.server.stores.encrypted_keys import encrypted_keys, keys_from_file

__all__ = ["contradictions", "endpoint_settings", "open_configured", "policy_of", "webhook_of"]


def open_configured(settings: Settings) -> SessionStore:
    """The store, with its keys sealed if there is a seal key. Raises ConfigurationError, or StoreUnavailable."""
    keys = with_encrypted_keys(settings)
    store = open_store(settings.store)
    return encrypted_keys(store, keys) if keys else store


def with_encrypted_keys(settings: Settings) -> list[str]:
    """The seal keys, the newest first; none if nothing is to be sealed. Raises ConfigurationError."""
    return keys_from_file(settings.seal_key_file) if settings.seal_key_file else list(settings.seal_key)


def policy_of(settings: Settings) -> Policy:
    """How long things live."""
    return Policy(settings.access_ttl, settings.refresh_ttl, settings.max_age, settings.grace)


def endpoint_settings(settings: Settings) -> EndpointOptions:
    """What the endpoints are told. Raises ConfigurationError."""
    return {
        "prefix": settings.prefix,
        "password_grant": settings.password_grant,
        "scopes_of": _scopes_of(settings),
        "rate_limit": _guard(settings),
        "cookies": _cookies(settings),
        "origins": settings.origins,
    }


def _scopes_of(settings: Settings) -> Callable[[str], tuple[str, ...]]:
    own = dict(settings.scopes)
    return lambda subject: settings.default_scope + own.get(subject, ())


def _guard(settings: Settings) -> RateLimitPolicy | None:
    if not settings.guard_enabled:
        return None
    return RateLimitPolicy(
        settings.guard_account_burst,
        settings.guard_account_every,
        settings.guard_address_burst,
        settings.guard_address_every,
        settings.guard_known_for,
    )


def _cookies(settings: Settings) -> Cookies | None:
    if settings.cookies_mode == "off":
        return None
    return Cookies(
        mode=cast("Any", settings.cookies_mode),
        secure=settings.cookies_secure,
        same_site=cast("Any", settings.cookies_same_site),
        domain=settings.cookies_domain or None,
        path=settings.cookies_path or None,
        name=settings.cookies_name,
    )


def webhook_of(settings: Settings) -> Webhook | None:
    """What posts the events; None without a URL. Raises ConfigurationError."""
    return Webhook(settings.webhook_url, _webhook_secret(settings)) if settings.webhook_url else None


def _webhook_secret(settings: Settings) -> str:
    if not settings.webhook_secret_file:
        return settings.webhook_secret
    try:
        with open(settings.webhook_secret_file, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "it is no text"
        raise ConfigurationError(f"the webhook's secret {settings.webhook_secret_file} cannot be read: {why}") from None


def contradictions(settings: Settings) -> Iterator[str]:
    """What cannot be served, a line each."""
    if settings.workers > 1 and (name := _unshared_store(settings.store)):
        yield f"several workers cannot share {name}: use sqlite:///FILE, or one worker"
    if settings.demo and (settings.workers > 1 or settings.prefix.startswith("/demo")):
        yield "the demo needs one worker, and /demo for itself"
    if settings.issuer and not _is_url(settings.issuer):
        yield "issuer must be a URL without query and fragment, as https://id.example.com"
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", settings.prefix):
        yield "prefix must be a path, as /auth"
    if settings.metrics_port and settings.metrics_port == settings.port:
        yield "metrics_port must not be the server's own port"
    for part in (
        policy_of,
        with_encrypted_keys,
        _guard,
        _cookies,
        webhook_of,
        lambda found: AllowedOrigins(found.origins),
        _sealer,
    ):
        try:
            part(settings)
        except ConfigurationError as error:
            yield str(error)


def _unshared_store(url: str) -> str:
    """Return the name of a store that only one process may use, or an empty text."""
    try:
        found = store_type(url)
    except ConfigurationError:
        return ""  # opening the store says what is wrong
    return "" if found.shared else found.name


def _sealer(settings: Settings) -> None:
    from unbroken._encryption import Encryptor  # noqa: PLC0415  # cryptography takes its time to load

    try:
        keys = with_encrypted_keys(settings)
    except ConfigurationError:
        return  # that was said already
    if keys:
        Encryptor(keys)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
    except ValueError:
        return False
