"""Makes what the settings describe: the store, the policy, the options of the endpoints, the webhook.

``conflicts`` reports all settings that cannot be served; the other functions raise ConfigurationError for the first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any, cast
from urllib.parse import urlsplit

from unbroken._private_files import read_secret
from unbroken.cli.settings import Settings
from unbroken.errors import ConfigurationError
from unbroken.server import Accounts, Policy, ProofPolicy, RateLimitPolicy, Webhook, open_store
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.origins import AllowedOrigins
from unbroken.server.http.settings import EndpointOptions
from unbroken.server.stores import SessionStore, store_type
from unbroken.server.stores.encrypted_keys import NO_KEY, encrypted_keys, keys_from_file

__all__ = [
    "build_policy",
    "build_proofs",
    "build_store",
    "build_webhook",
    "conflicts",
    "encryption_keys",
    "endpoint_options",
]


def build_store(settings: Settings) -> SessionStore:
    """Return the store; with an encryption key, it encrypts its keys. Without one, ``Sessions`` decides.

    Raise ConfigurationError or StoreUnavailable.
    """
    keys = encryption_keys(settings)
    store = open_store(settings.store)
    return encrypted_keys(store, keys) if keys else store


def encryption_keys(settings: Settings) -> list[str]:
    """Return the encryption keys, the newest first; an empty list if there are none. Raise ConfigurationError."""
    if settings.encryption_key_file:
        return keys_from_file(settings.encryption_key_file)
    keys = list(settings.encryption_key)
    return [] if keys == ["none"] else keys  # ``Sessions`` reads the variable again


def build_policy(settings: Settings) -> Policy:
    """Return the lifetimes. Raise ConfigurationError."""
    return Policy(
        settings.access_ttl,
        settings.refresh_ttl,
        settings.max_age,
        settings.grace,
        max_sessions_per_subject=settings.max_sessions_per_subject or None,
        max_shared_generations=settings.max_shared_generations or None,
        on_suspicion="revoke" if settings.on_suspicion == "revoke" else "report",
    )


def build_proofs(settings: Settings) -> ProofPolicy:
    """Return which clients bind their sessions to a key. Raise ConfigurationError."""
    clients = dict.fromkeys(settings.proofs_off_clients, "off") | dict.fromkeys(
        settings.proofs_required_clients, "required"
    )
    return ProofPolicy(
        cast("Any", settings.proofs_binding),
        clients=cast("Any", clients),
        public_url=settings.proofs_public_url,
        require_nonce=settings.proofs_require_nonce,
        window=settings.proofs_window,
        replays=cast("Any", settings.proofs_replays),
        revoke_without_proof=settings.proofs_revoke_without_proof,
        certificate_header=settings.proofs_certificate_header,
        certificate_secret=settings.proofs_certificate_secret,
    )


def endpoint_options(settings: Settings, accounts: Accounts | None = None) -> EndpointOptions:
    """Return the options of the endpoints. Raise ConfigurationError."""
    return {
        "prefix": settings.prefix,
        "password_grant": settings.password_grant,
        "tickets": settings.tickets,
        "scopes_of": scopes_of(settings, accounts if settings.account_scopes else None),
        "rate_limit": _build_rate_limit(settings),
        "cookies": _build_cookies(settings),
        "origins": settings.origins,
    }


def scopes_of(settings: Settings, accounts: Accounts | None = None) -> Callable[[str], tuple[str, ...]] | None:
    """Return a function that tells what a user may have; None if no user may have a scope, so that no refresh asks.

    With *accounts*, what an account has is looked up.
    """
    by_user = dict(settings.scopes)
    if not by_user and not settings.default_scope and accounts is None:
        return None
    of_account = accounts.scopes_of if accounts else lambda _: ()
    return lambda subject: (*settings.default_scope, *by_user.get(subject, ()), *of_account(subject))


def _build_rate_limit(settings: Settings) -> RateLimitPolicy | None:
    if not settings.rate_limit_enabled:
        return None
    return RateLimitPolicy(
        settings.rate_limit_account_burst,
        settings.rate_limit_account_every,
        settings.rate_limit_address_burst,
        settings.rate_limit_address_every,
        settings.rate_limit_known_for,
    )


def _build_cookies(settings: Settings) -> Cookies | None:
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


def build_webhook(settings: Settings) -> Webhook | None:
    """Return the webhook, or None without a URL. Raise ConfigurationError."""
    return Webhook(settings.webhook_url, _webhook_secret(settings)) if settings.webhook_url else None


def _webhook_secret(settings: Settings) -> str:
    if not settings.webhook_secret_file:
        return settings.webhook_secret
    try:
        return read_secret(settings.webhook_secret_file, "the webhook secret").decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "it is not valid UTF-8"
        raise ConfigurationError(f"the webhook secret {settings.webhook_secret_file} cannot be read: {cause}") from None


def conflicts(settings: Settings) -> Iterator[str]:
    """Yield each reason why the settings cannot be served, as one line."""
    if settings.workers > 1 and (name := _unshared_store(settings.store)):
        yield f"several workers cannot share {name}: use sqlite:///FILE, or one worker"
    if settings.demo and (settings.workers > 1 or settings.prefix.startswith("/demo")):
        yield "the demo needs one worker, and the path /demo for itself"
    if settings.issuer and not _is_url(settings.issuer):
        yield "issuer must be a URL without query and fragment, such as https://id.example.com"
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", settings.prefix):
        yield "prefix must be a path, such as /auth"
    if settings.metrics_port and settings.metrics_port == settings.port:
        yield "metrics_port and port must differ"
    for build in (
        encryption_keys,
        build_policy,
        build_proofs,
        _build_rate_limit,
        _build_cookies,
        build_webhook,
        _check_origins,
        _check_keys,
    ):
        try:
            build(settings)
        except ConfigurationError as error:
            yield str(error)


def _unshared_store(url: str) -> str:
    """Return the name of a store that only one process may use, or an empty text."""
    try:
        found = store_type(url)
    except ConfigurationError:
        return ""  # opening the store reports it
    return "" if found.shared else found.name


def _check_origins(settings: Settings) -> None:
    AllowedOrigins(settings.origins)


def _check_keys(settings: Settings) -> None:
    from unbroken._encryption import Encryptor  # noqa: PLC0415  # cryptography is slow to import

    try:
        keys, kind = encryption_keys(settings), store_type(settings.store)
    except ConfigurationError:
        return  # reported already, or when the store is opened
    if keys:
        Encryptor(keys)
    elif not settings.encryption_key and kind.shared and kind.path is None:
        raise ConfigurationError(NO_KEY)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
    except ValueError:
        return False
