"""The settings of the endpoints: the keyword arguments that the entry points of all frameworks take.

1. An unknown name is refused, and the error names the nearest setting: a misspelled setting must not leave a default
   in force that the application meant to change.
2. Every value is checked when the endpoints are made, not at the first request.
3. Short forms mean what they say: ``cookies="both"`` is ``Cookies("both")``, ``rate_limit=False`` is None.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, Unpack

from unbroken.errors import ConfigurationError
from unbroken.server.grants.rights import ScopesOf
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.origins import AllowedOrigins
from unbroken.server.login.authenticator import IsActive, VerifyMfa
from unbroken.server.login.rate_limit import RateLimitPolicy
from unbroken.server.login.security_stamp import SecurityStamp

__all__ = ["EndpointOptions", "EndpointSettings", "suggestion"]

PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
OTHER_WORDS = {  # what people call these settings elsewhere
    "guard": "rate_limit",
    "throttle": "rate_limit",
    "mfa": "verify_mfa",
    "second_factor": "verify_mfa",
    "cors": "origins",
    "scopes": "scopes_of",
    "url_prefix": "prefix",
}


class EndpointOptions(TypedDict, total=False):
    """The keyword arguments of an entry point. ``EndpointSettings`` says what each of them does."""

    prefix: str
    password_grant: bool
    scopes_of: ScopesOf | None
    verify_mfa: VerifyMfa | None
    is_active: IsActive | None
    security_stamp: SecurityStamp | None
    rate_limit: RateLimitPolicy | bool | None
    cookies: Cookies | Literal["refresh", "both"] | bool | None
    tickets: bool
    origins: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """How the endpoints behave. Raise ConfigurationError for a wrong value."""

    prefix: str = "/auth"  # the path of the endpoints
    password_grant: bool = False  # accept RFC 6749 §4.3 at /token, for documentation pages and old clients
    scopes_of: ScopesOf | None = None  # the scope that a subject may have now; None: that of the ``Sessions``
    verify_mfa: VerifyMfa | None = None  # checks the code of a login for which ``authenticate`` returns MfaRequired
    is_active: IsActive | None = None  # called at each refresh: a subject that is inactive loses the session
    security_stamp: SecurityStamp | None = None  # a text that changes with the subject's password; then sessions end
    rate_limit: RateLimitPolicy | None = RateLimitPolicy()  # how often credentials may be wrong; None: no limit
    cookies: Cookies | None = None  # lets clients keep their tokens in cookies; None: tokens in bodies only
    tickets: bool = True  # serve /ticket, for connections that a browser opens without headers
    origins: tuple[str, ...] = ()  # other origins whose pages may call the endpoints: https://app.example.com

    def __post_init__(self) -> None:
        wrong = {
            "prefix must be a path such as '/auth', or ''": not _is_prefix(self.prefix),
            "password_grant must be True or False": not isinstance(self.password_grant, bool),
            "tickets must be True or False": not isinstance(self.tickets, bool),
            "rate_limit must be a RateLimitPolicy, True or False": not _is_a(RateLimitPolicy, self.rate_limit),
            "cookies must be Cookies(...), 'refresh', 'both', True or False": not _is_a(Cookies, self.cookies),
        }
        for name in ("scopes_of", "verify_mfa", "is_active", "security_stamp"):
            function = getattr(self, name)
            wrong[f"{name} must be a function"] = function is not None and not callable(function)
        if found := [words for words, is_wrong in wrong.items() if is_wrong]:
            raise ConfigurationError("; ".join(found))
        AllowedOrigins(self.origins)  # rule 2

    @classmethod
    def of(cls, **options: Unpack[EndpointOptions]) -> EndpointSettings:
        """Return the settings that *options* describe. Raise ConfigurationError for an unknown name, a wrong value."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:  # rule 1
                raise ConfigurationError(f"there is no setting {name!r}: {suggestion(name, known, OTHER_WORDS)}")
        values: dict[str, Any] = dict(options)
        if isinstance(values.get("prefix"), str):
            values["prefix"] = values["prefix"].rstrip("/")
        if "rate_limit" in values:
            values["rate_limit"] = _rate_limit(values["rate_limit"])
        if "cookies" in values:
            values["cookies"] = _cookies(values["cookies"])
        if "origins" in values:
            values["origins"] = _origins(values["origins"])
        return cls(**values)


def suggestion(name: str, known: Iterable[str], other_words: dict[str, str] | None = None) -> str:
    """Return what an error says after an unknown *name*: the nearest of the *known* ones, or all of them."""
    words = {word: word for word in known} | (other_words or {})
    near = difflib.get_close_matches(name, words, n=1)
    return f"did you mean {words[near[0]]}?" if near else "the settings are " + ", ".join(known)


def _is_prefix(value: object) -> bool:
    return isinstance(value, str) and PREFIX.fullmatch(value) is not None


def _is_a(kind: type, value: object) -> bool:
    return value is None or isinstance(value, kind)


def _rate_limit(value: Any) -> Any:
    if isinstance(value, bool):  # rule 3
        return RateLimitPolicy() if value else None
    return value


def _cookies(value: Any) -> Any:
    if isinstance(value, bool):  # rule 3
        return Cookies() if value else None
    return Cookies(value) if value in ("refresh", "both") else value


def _origins(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigurationError("origins must be a list, such as ['https://app.example.com']")
    return tuple(value)
