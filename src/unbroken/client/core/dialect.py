"""How a backend speaks: where it is asked, how a token is attached, which answers mean what. Pure; all of it is data.

    Dialect
    ├── attach       header, scheme            Authorization: Bearer …
    ├── challenge    When, or a function       which answer says that the access token is no good
    ├── refresh      Ask                       the exchange: URL, method, form, JSON or query
    ├── tokens       Fields                    where the answer keeps access token, refresh token, lifetime
    ├── over         When                      which answer to the exchange ends the session
    ├── refused      When                      which answer to the login means a wrong name or password
    ├── step         Ask                       the second step of a login (``mfa_token`` and ``code``)
    └── login, logout  Ask, optional           what ``Session.login`` and ``Session.logout`` send

1. Only ``over`` ends a session. Any other answer without tokens means try later, and the stored tokens are kept.
2. A body is read only where a condition asks for it, only as JSON, of declared types, and up to a declared size.
3. The attempt id goes out as ``Idempotency-Key``; a server that does not know it ignores it.

Is this answer about our access token? Pure reading of an HTTP answer.

1. RFC 9110 §11.6.1: a 401 carries challenges; ours is ``Bearer`` (RFC 6750 §3). A 401 with challenges of other schemes
   only is somebody else's affair.
2. RFC 6750 §3.1: ``invalid_token`` is about the token, and so is what some servers say instead.
   ``insufficient_scope`` and ``invalid_request`` are not: no new token would help.
3. Many servers send a bare 401; it counts as a challenge.
4. A dialect may say otherwise: another status, or a code in the body of a declared type and size.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote_plus, urlencode

from unbroken._http import MAX_BODY_BYTES, HttpRequest, HttpResponse, retry_after_seconds
from unbroken._origins import Origin, ascii_and_unicode_forms, is_secure, origin_of
from unbroken.client.core.refresh_rules import GrantRejected, Indeterminate, RefreshOutcome
from unbroken.errors import BadResponse, ConfigurationError, InvalidRequest, LoginRefused, TryLater
from unbroken.tokens import TokenFields, TokenResponse, Tokens, value_at

__all__ = [
    "Dialect",
    "RequestTemplate",
    "ResponseMatch",
    "allowed_origins",
    "is_bearer_challenge",
    "oauth2",
    "parse_challenges",
    "unbroken_server",
]


@dataclass(frozen=True, slots=True)
class ResponseMatch:
    """A condition on an answer, as data: its status, and the value at a dotted ``field`` of its JSON body.

    ``values`` are compared as texts, so that 401 and "401" are the same. ``negate`` turns the comparison of the value
    around, for backends that know one good code and many bad ones.
    """

    status: frozenset[int] | None = None
    field: str = ""
    values: frozenset[str] = frozenset()
    negate: bool = False

    @classmethod
    def of(cls, *status: int, field: str = "", values: tuple[object, ...] = (), negate: bool = False) -> ResponseMatch:
        """A condition in short: ``When.of(401)``, ``When.of(200, field="code", values=(401,))``."""
        return cls(frozenset(status) or None, field, frozenset(map(str, values)), negate)

    @property
    def reads_body(self) -> bool:
        """Whether the body must be read to tell."""
        return bool(self.field)

    def matches(self, reply: HttpResponse) -> bool:
        """Whether *reply* fulfils the condition."""
        if self.status is not None and reply.status not in self.status:
            return False
        if not self.field:
            return True
        body = reply.json()
        if not isinstance(body, Mapping):
            return False
        return (str(value_at(body, self.field)) in self.values) is not self.negate


def is_bearer_challenge(reply: HttpResponse, scheme: str = "bearer") -> bool:
    """Whether *reply* says that the token is no good (RFC 6750 §3), to whoever sent it under *scheme*."""
    if reply.status != 401:
        return False
    header = reply.headers.get("www-authenticate")
    if header is None:
        return True
    return any(
        name in ("bearer", scheme.lower()) and parameters.get("error") not in ("insufficient_scope", "invalid_request")
        for name, parameters in parse_challenges(header)
    )


_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"\s*(?:,\s*)*({_TOKEN})(?=\s|,|$)(?!\s*=)\s*")
_PARAMETER = re.compile(rf'\s*(?:,\s*)*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?=,|$)')
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*\s*(?=,|$)")


def parse_challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    """The challenges of a ``WWW-Authenticate`` value: scheme in lower case, and its parameters.

    Reading stops at the first thing that is no challenge; what came before it counts.
    """
    challenges: list[tuple[str, dict[str, str]]] = []
    position = 0
    while match := _SCHEME.match(header, position):
        parameters: dict[str, str] = {}
        position = match.end()
        while parameter := _PARAMETER.match(header, position):
            name, quoted, plain = parameter.groups()
            parameters[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            position = parameter.end()
        if not parameters and (token68 := _TOKEN68.match(header, position)) and "=" in token68.group():
            position = token68.end()
        challenges.append((match.group(1).lower(), parameters))
    return challenges


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """How to ask the backend for something: *values* are carried as a form, as JSON, in the query, or as headers.

    ``names`` maps our names (``refresh_token``, ``username``, ``password``) to the backend's; ``extra`` goes along.
    ``scheme`` stands before each value that is carried as a header. ``attach``: the access token goes along, as with
    any other request; for a logout that asks for it.
    """

    url: str
    method: str = "POST"
    encoding: Literal["form", "json", "query", "header"] = "json"
    rename: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    scheme: str = ""
    authenticate: bool = False

    def build(self, values: Mapping[str, object], headers: Mapping[str, str] | None = None) -> HttpRequest:
        """The request that carries *values*."""
        carried = {self.rename.get(name, name): value for name, value in values.items()} | dict(self.extra)
        head = {"accept": "application/json", **_lower_case_names(headers or {}), **_lower_case_names(self.headers)}
        if self.encoding == "query":
            mark = "&" if "?" in self.url else "?"
            return HttpRequest(self.method, self.url + mark + urlencode(carried), head)
        if self.encoding == "header":
            own = {name.lower(): f"{self.scheme} {value}".lstrip() for name, value in carried.items()}
            return HttpRequest(self.method, self.url, head | own)
        if self.encoding == "form":
            head["content-type"] = "application/x-www-form-urlencoded"
            return HttpRequest(self.method, self.url, head, urlencode(carried).encode())
        head["content-type"] = "application/json"
        return HttpRequest(self.method, self.url, head, json.dumps(carried).encode())


@dataclass(frozen=True, slots=True)
class MfaChallenge:
    """The password was right, and a code is wanted too: of which ``kind`` (``totp``), and a ``hint`` for the user."""

    token: str = field(repr=False)
    kind: str = ""
    hint: str = ""


UNKNOWN_CLIENT_ERRORS = ("invalid_client", "unauthorized_client")  # RFC 6749 §5.2
INVALID_GRANT = ResponseMatch.of(400, 401, field="error", values=("invalid_grant",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one backend speaks. The defaults are those of OAuth 2.0 bearer tokens; five lines describe most others.

    ``scheme``: what stands before the token; None takes it from the answer (``token_type``), and so does
    ``Fields.prefix``, to the letter. ``challenge``: a ``When``, or a function of status and headers
    of a 401; None is a 401 about our scheme (RFC 6750 §3).
    ``refused``: which answer to a login means a wrong name or password. ``reason``: path of a word that says why the
    session is over. A challenge in the body is looked for in answers of ``body_types`` only, and of at most
    ``max_body_bytes`` bytes. One that announces more stays unread; one that announces no length is read that far, and
    handed over whole.
    """

    refresh: RequestTemplate
    login: RequestTemplate | None = None
    mfa: RequestTemplate | None = None
    logout: RequestTemplate | None = None
    tokens: TokenFields = TokenFields()
    header: str = "Authorization"
    scheme: str | None = "Bearer"
    challenge: ResponseMatch | Callable[[HttpResponse], bool] | None = None
    succeeded: ResponseMatch = field(default_factory=lambda: ResponseMatch(frozenset(range(200, 300))))
    ends_session: ResponseMatch = INVALID_GRANT
    login_failed: ResponseMatch = field(default_factory=lambda: ResponseMatch.of(401, 403))
    reason_field: str = "reason"
    origins: tuple[str, ...] = ()
    body_types: tuple[str, ...] = ("application/json", "application/problem+json", "text/json")
    max_body_bytes: int = MAX_BODY_BYTES

    def header_value(self, tokens: Tokens) -> str:
        """The value of ``header`` for a request that is sent with *tokens*."""
        if self.tokens.prefix:
            return tokens.token_type + tokens.access_token
        scheme = tokens.token_type if self.scheme is None else self.scheme
        return f"{scheme} {tokens.access_token}" if scheme else tokens.access_token

    @property
    def reads_body(self) -> bool:
        """Whether an answer's body must be read to see a challenge."""
        return isinstance(self.challenge, ResponseMatch) and self.challenge.reads_body

    def may_challenge(self, status: int) -> bool:
        """Whether an answer with this status can be a challenge."""
        if not isinstance(self.challenge, ResponseMatch):
            return status == 401
        return self.challenge.status is None or status in self.challenge.status

    def may_read_body(self, headers: Mapping[str, str]) -> bool:
        """Whether an answer with these headers (names in lower case) may be read to look for a challenge."""
        length = headers.get("content-length", "0")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        return kind in self.body_types and length.isdigit() and int(length) <= self.max_body_bytes

    def is_challenge(self, reply: HttpResponse) -> bool:
        """Whether *reply* says that the access token it answers is no good."""
        if isinstance(self.challenge, ResponseMatch):
            return self.challenge.matches(reply)
        if self.challenge is None:
            return is_bearer_challenge(reply, self.scheme or "bearer")
        return self.challenge(reply)

    def refresh_request(self, tokens: Tokens, attempt: str) -> HttpRequest:
        """The exchange of *tokens* (RFC 6749 §6), under the attempt id *attempt*."""
        return self.refresh.build({"refresh_token": tokens.refresh_token or ""}, {"idempotency-key": f'"{attempt}"'})

    def read_refresh_response(self, reply: HttpResponse) -> RefreshOutcome:
        """What *reply* to the exchange means."""
        if self.ends_session.matches(reply):
            word = value_at(reply.json(), self.reason_field) if self.reason_field else None
            return GrantRejected(word if isinstance(word, str) and word.isidentifier() else "invalid_grant")
        if self.succeeded.matches(reply):
            try:
                return TokenResponse.from_response(reply.json(), self.tokens)
            except BadResponse as error:
                return _unreadable_response(reply, error)
        return Indeterminate(_describe_error(reply), reply.status in (502, 504), retry_after_seconds(reply))

    def login_request(self, username: str, password: str, extra: Mapping[str, object]) -> HttpRequest:
        """The login request. Raises ConfigurationError when the dialect has none."""
        if self.login is None:
            raise ConfigurationError("this dialect has no login; hand the tokens in with session.import_tokens(...)")
        return self.login.build({"username": username, "password": password, **extra})

    def mfa_request(self, more: MfaChallenge, code: str) -> HttpRequest:
        """The request that takes the second step. Raises ConfigurationError when the dialect has none."""
        if self.mfa is None:
            raise ConfigurationError("the server wants a second step, and this dialect has none: set its step=Ask(...)")
        return self.mfa.build({"mfa_token": more.token, "code": code})

    def read_login_response(self, reply: HttpResponse) -> TokenResponse | MfaChallenge:
        """The tokens of a login, or what its second step needs.

        Raises LoginRefused, TryLater, InvalidRequest or ConfigurationError (BadResponse).
        """
        if more := _mfa_challenge(reply):
            return more
        if self.login_failed.matches(reply) and value_at(reply.json(), "error") not in UNKNOWN_CLIENT_ERRORS:
            raise LoginRefused("the login was refused: wrong name or password")
        if self.succeeded.matches(reply):
            return TokenResponse.from_response(reply.json(), self.tokens)
        if reply.status == 429 or reply.status >= 500:
            raise TryLater(_describe_error(reply), retry_after=retry_after_seconds(reply))
        error = value_at(reply.json(), "error")
        if error in UNKNOWN_CLIENT_ERRORS:
            raise ConfigurationError(f"the server does not know this client, or it may not log in so: {error}")
        if error in ("access_denied", "invalid_grant"):
            raise LoginRefused("the login was refused: wrong name or password")
        raise InvalidRequest(f"the login was not understood: {_describe_error(reply)}")

    def logout_request(self, tokens: Tokens) -> HttpRequest | None:
        """The request that ends the session of *tokens* at the server; None when the dialect has none."""
        if self.logout is None:
            return None
        token = tokens.refresh_token or tokens.access_token
        return self.logout.build(
            {"refresh_token": token}, {self.header: self.header_value(tokens)} if self.logout.authenticate else {}
        )


def unbroken_server(url: str, *, prefix: str = "/auth") -> Dialect:
    """The dialect of unbroken's own server at *url*; sessions are coordinated (the attempt id replaces the grace)."""
    base = url.rstrip("/") + prefix
    return Dialect(
        refresh=RequestTemplate(base + "/refresh"),
        login=RequestTemplate(base + "/login", extra={"coordinated": True}),
        mfa=RequestTemplate(base + "/login/step"),
        logout=RequestTemplate(base + "/logout"),
        origins=(url,),
    )


def oauth2(
    token_endpoint: str,
    *,
    client_id: str = "",
    client_secret: str = "",
    revocation_endpoint: str = "",
    origins: tuple[str, ...] = (),
) -> Dialect:
    """The dialect of an OAuth 2.0 server (RFC 6749, revocation RFC 7009).

    With a *client_secret* the client authenticates by HTTP Basic (§2.3.1), else *client_id* goes into the form.
    *origins* are those of the API; by default that of the token endpoint.
    """
    headers: dict[str, str] = {}
    client: dict[str, object] = {"client_id": client_id} if client_id else {}
    if client_secret:
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
        headers, client = {"authorization": "Basic " + b64encode(pair.encode()).decode()}, {}
    revoke = RequestTemplate(revocation_endpoint, "POST", "form", {"refresh_token": "token"}, client, headers)
    return Dialect(
        refresh=RequestTemplate(token_endpoint, "POST", "form", {}, {"grant_type": "refresh_token", **client}, headers),
        login=RequestTemplate(token_endpoint, "POST", "form", {}, {"grant_type": "password", **client}, headers),
        logout=revoke if revocation_endpoint else None,
        origins=origins or (token_endpoint,),
    )


def _unreadable_response(reply: HttpResponse, error: BadResponse) -> Indeterminate:
    """An object without tokens is the backend's answer, and the dialect is wrong; anything else came from elsewhere."""
    if isinstance(reply.json(), Mapping):
        return Indeterminate(str(error), cause=error, may_retry=False)
    return Indeterminate("the server's answer to the renewal cannot be read", lost=True, cause=error)


def _mfa_challenge(reply: HttpResponse) -> MfaChallenge | None:
    body = reply.json()
    token, kind, hint = (value_at(body, name) for name in ("mfa_token", "challenge_type", "hint"))
    if reply.status < 400 or value_at(body, "error") != "mfa_required" or not isinstance(token, str):
        return None
    return MfaChallenge(token, kind if isinstance(kind, str) else "", hint if isinstance(hint, str) else "")


def _lower_case_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _describe_error(reply: HttpResponse) -> str:
    error = value_at(reply.json(), "error")
    word = f", error {error!r}" if isinstance(error, str) and error.isidentifier() else ""
    return f"the server answered with status {reply.status}{word}"


def allowed_origins(dialect: Dialect, more: tuple[str, ...], plain: bool) -> frozenset[Origin]:
    """The origins that tokens may go to; every URL of the dialect is checked on the way."""
    asked = [ask.url for ask in (dialect.refresh, dialect.login, dialect.mfa, dialect.logout) if ask is not None]
    for url in (*asked, *dialect.origins, *more):
        origin = origin_of(url)
        if not is_secure(origin) and not plain:
            raise ConfigurationError(
                f"tokens must not travel in the clear: use https for {origin.host}, or say allow_plain_http=True"
            )
    mine = [origin_of(url) for url in (*(dialect.origins or (dialect.refresh.url,)), *more)]
    return frozenset(
        Origin(scheme, name, port) for scheme, host, port in mine for name in ascii_and_unicode_forms(host)
    )
