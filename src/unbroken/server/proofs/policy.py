"""Which sessions are bound to a key of their client, and what a proof of that key must be.

    Sessions(store, issuer="https://id.example.com", proofs="required")
    Sessions(store, issuer="https://id.example.com", proofs=ProofPolicy(public_url="https://shop.example.com/api"))

1. ``binding`` says what a login with a proof, and one without, leads to: ``accepted`` (a proof binds the session),
   ``required`` (a login without a proof is refused), ``off`` (proofs are ignored at login). ``clients`` says it for
   some clients, by their id.
2. A session that is bound stays bound, whatever the policy says later: its tokens are good for nothing without proofs.
3. ``required`` holds at each refresh too (RFC 9449 §5.2): a session of such a client that is not bound is refused. So
   let clients bind their sessions first (``accepted``), then require it.
4. ``public_url`` is where clients see the server: a proof names the URL of its request. Several URLs, if it has several
   names. A path in it is what a proxy takes away. Without it, the origin of the issuer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from unbroken._http import ascii_and_unicode_forms
from unbroken._time import Duration, to_seconds
from unbroken.errors import ConfigurationError
from unbroken.server.core.proof import normalized_url

__all__ = ["Binding", "ProofPolicy", "Replays", "public_urls", "valid_policy"]

Binding = Literal["off", "accepted", "required"]
Replays = Literal["process", "writes", "all"]
MAX_WINDOW_SECONDS = 600.0
HEADER_NAME = re.compile(r"[A-Za-z0-9-]+")
CERTIFICATE_SECRET = re.compile(r"[!-+\--~]{16,}")  # without the comma, which joins headers
NO_CLIENTS: Mapping[str, Binding] = MappingProxyType({})


@dataclass(frozen=True, slots=True, init=False)
class ProofPolicy:
    """Which clients bind their sessions, and what a proof must be (RFC 9449).

    *window*: how old a proof may be, in seconds, or a ``timedelta``. *require_nonce*: a proof must have the server's
    newest nonce, or the one before: then it was made after the server had given it out, and the client's clock does not
    matter. *replays*: where proofs that come with access tokens are remembered, so that each is good once: ``process``
    (each process of the server by itself), ``writes`` (the store too, for all methods but GET, HEAD and OPTIONS) or
    ``all`` (the store, for each request). *revoke_without_proof*: any token of a bound session may end it,
    for clients that send no proof with a logout. *certificate_header*: the name of the header in which a proxy sends
    *certificate_secret*, of 16 characters or more, a space, and the SHA-256 of the client's TLS certificate, for tokens
    that are bound to one (RFC 8705 §3).

    Raises ConfigurationError, naming the field, for a wrong value.
    """

    binding: Binding
    clients: Mapping[str, Binding]
    public_url: tuple[str, ...]
    require_nonce: bool
    window: float
    replays: Replays
    revoke_without_proof: bool
    certificate_header: str
    certificate_secret: str = field(repr=False)

    def __init__(
        self,
        binding: Binding = "accepted",
        *,
        clients: Mapping[str, Binding] = NO_CLIENTS,
        public_url: str | Iterable[str] = (),
        require_nonce: bool = False,
        window: Duration = 60.0,
        replays: Replays = "writes",
        revoke_without_proof: bool = False,
        certificate_header: str = "",
        certificate_secret: str = "",
    ) -> None:
        _check_words("binding", (binding,), get_args(Binding))
        if not isinstance(clients, Mapping) or not all(isinstance(name, str) for name in clients):
            raise ConfigurationError(
                "proofs: clients must be a dict, from client ids to 'off', 'accepted' or 'required'"
            )
        _check_words("clients", clients.values(), get_args(Binding))
        _check_words("replays", (replays,), get_args(Replays))
        for name, value in (("require_nonce", require_nonce), ("revoke_without_proof", revoke_without_proof)):
            if not isinstance(value, bool):
                raise ConfigurationError(f"proofs: {name} must be True or False")
        seconds = to_seconds("window", window, above_zero=True)
        if seconds > MAX_WINDOW_SECONDS:
            raise ConfigurationError(f"proofs: window is at most {MAX_WINDOW_SECONDS:g} seconds, not {seconds:g}")
        _check_certificate_header(certificate_header, certificate_secret)
        object.__setattr__(self, "binding", binding)
        object.__setattr__(self, "clients", MappingProxyType(dict(clients)))
        object.__setattr__(self, "public_url", public_urls(public_url))
        object.__setattr__(self, "require_nonce", require_nonce)
        object.__setattr__(self, "window", seconds)
        object.__setattr__(self, "replays", replays)
        object.__setattr__(self, "revoke_without_proof", revoke_without_proof)
        object.__setattr__(self, "certificate_header", certificate_header.lower())
        object.__setattr__(self, "certificate_secret", certificate_secret)

    @property
    def requires_some(self) -> bool:
        """Whether some clients must bind their sessions."""
        return "required" in (self.binding, *self.clients.values())

    def binding_of(self, client_id: str) -> Binding:
        """Return what the policy says of the client *client_id* (rule 1)."""
        return self.clients.get(client_id, self.binding)

    @property
    def is_off(self) -> bool:
        """Whether no client can bind a session."""
        return self.binding == "off" and all(one == "off" for one in self.clients.values())


def valid_policy(value: object) -> ProofPolicy:
    """Return *value* as a policy: a word is that of ``binding``. Raise ConfigurationError."""
    if isinstance(value, ProofPolicy):
        return value
    if isinstance(value, str):
        return ProofPolicy(value)  # type: ignore[arg-type]  # it checks the word
    raise ConfigurationError("proofs must be a ProofPolicy, 'off', 'accepted' or 'required'")


def public_urls(value: str | Iterable[str]) -> tuple[str, ...]:
    """Return the normalized URLs in *value*, without a slash at their end (rule 4). Raise ConfigurationError."""
    urls = (value,) if isinstance(value, str) else value
    try:
        if isinstance(urls, bytes):  # empty ones are a list without a URL, otherwise
            raise TypeError  # noqa: TRY301  # one error for everything that is no text
        return tuple(_public_url(url) for url in urls)
    except (TypeError, AttributeError):
        raise ConfigurationError("proofs: public_url must be a URL, or a list of URLs") from None


def _check_certificate_header(name: str, secret: str) -> None:
    """Raise ConfigurationError unless *name* is that of a header, and *secret* is too long to guess."""
    if not isinstance(name, str) or not isinstance(secret, str):
        raise ConfigurationError("proofs: certificate_header and certificate_secret must be texts")
    if bool(name) != bool(secret):
        raise ConfigurationError("proofs: certificate_header needs certificate_secret, and the other way round")
    if name and not HEADER_NAME.fullmatch(name):
        raise ConfigurationError(f"proofs: certificate_header must be the name of a header, not {name!r}")
    if secret and not CERTIFICATE_SECRET.fullmatch(secret):
        raise ConfigurationError("proofs: certificate_secret must be 16 printable ASCII characters or more, no spaces")


def _public_url(url: str) -> str:
    try:
        if "?" in url or "#" in url:
            raise ValueError  # noqa: TRY301  # one error for everything that is wrong
        return normalized_url(_in_ascii(url)).rstrip("/")
    except ValueError:
        raise ConfigurationError(
            f"proofs: public_url must be the URL that clients use, as https://shop.example.com or "
            f"https://example.com/shop: not {url!r}"
        ) from None


def _in_ascii(url: str) -> str:
    """Return *url* with its host as clients send it (RFC 5891)."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    ascii_host = next((form for form in ascii_and_unicode_forms(host) if form.isascii()), host)
    return f"{scheme}{separator}{ascii_host}{slash}{path}"


def _check_words(name: str, words: Iterable[object], known: tuple[str, ...]) -> None:
    for word in words:
        if word not in known:
            raise ConfigurationError(f"proofs: {name} must be one of {', '.join(known)}: not {word!r}")
