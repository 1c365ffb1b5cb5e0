"""Where a person logs in at an OAuth 2.0 server, and what that server wants to be asked. Pure; all of it is data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from unbroken._arguments import checked_class
from unbroken._http import origin_of
from unbroken.errors import ConfigurationError

__all__ = ["LOOPBACK_REDIRECT", "LoginEndpoints", "check_redirect_uri"]

LOOPBACK_REDIRECT = "http://127.0.0.1/callback"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost")


@checked_class()
@dataclass(frozen=True, slots=True)
class LoginEndpoints:
    """The endpoints of the flows in which a person logs in; empty text for one that the server does not have.

    *issuer* is the name of the server, where it is known; with *returns_issuer* each redirect must carry it (RFC 9207).
    *scope* has the words that a refresh token takes here, besides those of the application (``offline_access``).
    *authorization_parameters* go along with each authorization request. *redirect_uri* is the default: loopback, and
    without a port any free one (RFC 8252 §7.3).
    """

    client_id: str
    authorization_endpoint: str = ""
    device_authorization_endpoint: str = ""
    issuer: str = ""
    returns_issuer: bool = False
    scope: str = ""
    authorization_parameters: Mapping[str, str] = field(default_factory=dict)
    redirect_uri: str = LOOPBACK_REDIRECT

    def __post_init__(self) -> None:
        check_redirect_uri(self.redirect_uri)

    @property
    def urls(self) -> tuple[str, ...]:
        """The endpoints that there are."""
        return tuple(filter(None, (self.authorization_endpoint, self.device_authorization_endpoint)))

    def scope_with(self, scope: str) -> str:
        """Return *scope*, and the words that a refresh token takes."""
        return " ".join(dict.fromkeys([*scope.split(), *self.scope.split()]))


def check_redirect_uri(uri: str) -> None:
    """Raise ConfigurationError for a redirect URI that a program on this machine cannot listen at."""
    parts = urlsplit(uri)
    if origin_of(uri).scheme != "http" or parts.hostname not in LOOPBACK_HOSTS or parts.query or parts.fragment:
        raise ConfigurationError(
            f"the redirect URI of a login is on this machine, such as {LOOPBACK_REDIRECT}: not {uri.partition('?')[0]}"
        )
