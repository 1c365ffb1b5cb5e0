"""How a backend speaks: where requests go, how a token is attached, which responses mean what. Pure; all of it is data.

    Dialect
    ├── header, scheme     how a token is attached: ``Authorization: Bearer …``
    ├── challenge          ResponseMatch or function: which response rejects the access token
    ├── refresh            RequestTemplate of the refresh: URL, method; form, JSON or query
    ├── tokens             TokenFields: where a token response has its values
    ├── ends_session       ResponseMatch: which response to a refresh ends the session
    ├── repeated_refresh   what the server does with a refresh that it gets twice
    ├── login, mfa         RequestTemplates of ``Session.login``: password, then a code (``mfa_token`` and ``code``)
    ├── login_failed       ResponseMatch: which response to a login means a wrong name or password
    ├── login_endpoints    where a person logs in, with a browser or a code
    └── logout             RequestTemplate of ``Session.logout``

1. Only ``ends_session`` ends a session. Any other response without tokens means "try later": the tokens are kept. An
   OAuth error is one under any status, 200 included, as JSON or as a form; its message has the server's own words.
2. A body is read only where a condition needs it, only as JSON, of declared types, and up to a declared size.
3. The idempotency key goes out as the header ``Idempotency-Key``; a server that does not know it ignores it. One that
   does repeats it in its response: that is how the client learns it (``repeated_refresh="learn"``).
4. A 401 is a challenge for us if it names our scheme, ``Bearer`` (RFC 9110 §11.6.1, RFC 6750 §3). A 401 that names
   only other schemes concerns other credentials.
5. ``invalid_token`` is about the token (RFC 6750 §3.1), as are the words that other servers use for it.
   ``insufficient_scope`` and ``invalid_request`` are not, nor are ``use_dpop_nonce`` and ``invalid_dpop_proof``
   (RFC 9449 §9 and §7.1): no new token would help.
6. A bare 401 counts as a challenge, because many servers send nothing else.
7. A value that cannot work is refused when it is made, by a ConfigurationError that names it.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args
from urllib.parse import quote, quote_plus, unquote_plus, urlencode

from unbroken._arguments import checked_class
from unbroken._http import (
    MAX_BODY_BYTES,
    HttpRequest,
    HttpResponse,
    Origin,
    ascii_and_unicode_forms,
    is_safe_in_header,
    is_secure,
    is_token,
    origin_of,
    parse_challenges,
    retry_after_seconds,
)
from unbroken.client.core.login_endpoints import LoginEndpoints
from unbroken.client.core.proof import PROOF_ERRORS
from unbroken.client.core.refresh_rules import GrantRejected, Indeterminate, RefreshOutcome, ServerKind
from unbroken.errors import BadResponse, ConfigurationError, InvalidRequest, LoginRefused, TryLater
from unbroken.tokens import TokenFields, TokenResponse, Tokens, value_at

__all__ = [
    "Dialect",
    "MfaChallenge",
    "RepeatedRefresh",
    "RequestTemplate",
    "ResponseMatch",
    "allowed_origins",
    "is_bearer_challenge",
    "proof_refused",
]

Encoding = Literal["form", "json", "query", "header"]
RepeatedRefresh = Literal["learn", "idempotent", "forgiving", "strict"]

BOUND_SCHEME = "DPoP"
NOT_ABOUT_THE_TOKEN = ("insufficient_scope", "invalid_request", *PROOF_ERRORS)


# ---- checks of values (rule 7) ---------------------------------------------------------------------------------------


def _require(is_right: bool, message: str) -> None:
    if not is_right:
        raise ConfigurationError(message)


def _is_status(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599


def _is_text_mapping(value: Mapping[Any, Any]) -> bool:
    return all(isinstance(text, str) for pair in value.items() for text in pair)


def _is_text_tuple(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(text, str) for text in value)


# ---- which responses mean what ---------------------------------------------------------------------------------------


@checked_class(own=("status", "field"))
@dataclass(frozen=True, slots=True)
class ResponseMatch:
    """A condition on a response, as data: its status, and the value at a dotted ``field`` of its JSON body.

    ``values`` are compared as text, so that 401 and "401" are the same. ``negate`` turns the comparison of the value
    around, for backends that have one good code and many bad ones.
    """

    status: frozenset[int] | None = None
    field: str = ""
    values: frozenset[str] = frozenset()
    negate: bool = False

    def __post_init__(self) -> None:
        _require(
            self.status is None or isinstance(self.status, (frozenset, set)),
            f"ResponseMatch.status must be a frozenset of statuses, not {self.status!r}: use ResponseMatch.of(401)",
        )
        for code in self.status or ():
            _require(_is_status(code), f"ResponseMatch.status must have HTTP statuses, 100 to 599, not {code!r}")
        _require(isinstance(self.field, str), f"ResponseMatch.field must be a dotted path as text, not {self.field!r}")
        _require(
            bool(self.field) or not self.values, "ResponseMatch.values are compared with a field: name it in field="
        )

    @classmethod
    def of(cls, *status: int, field: str = "", values: tuple[object, ...] = (), negate: bool = False) -> ResponseMatch:
        """Return a condition in short form: ``ResponseMatch.of(401)``, ``.of(200, field="code", values=(401,))``."""
        _require(not isinstance(values, str), f"ResponseMatch.of takes values as a tuple: values=({values!r},)")
        return cls(frozenset(status) or None, field, frozenset(map(str, values)), negate)

    @property
    def reads_body(self) -> bool:
        """Whether the condition needs the body."""
        return bool(self.field)

    def matches(self, response: HttpResponse) -> bool:
        """Return whether *response* fulfils the condition."""
        if self.status is not None and response.status not in self.status:
            return False
        if not self.field:
            return True
        body = response.parsed()
        if not isinstance(body, Mapping):
            return False
        value = value_at(body, self.field)
        is_plain = value is None or isinstance(value, (str, int, float))  # others are no code, and may be deep
        return (is_plain and str(value) in self.values) is not self.negate


def is_bearer_challenge(response: HttpResponse, scheme: str = "bearer") -> bool:
    """Return whether *response* rejects a token that was sent under *scheme* (RFC 6750 §3)."""
    if response.status != 401:
        return False
    header = response.headers.get("www-authenticate")
    if header is None:
        return True  # rule 6
    return any(
        name in ("bearer", scheme.lower())  # rule 4
        and parameters.get("error") not in NOT_ABOUT_THE_TOKEN  # rule 5
        for name, parameters in parse_challenges(header)
    )


# ---- which requests are sent -----------------------------------------------------------------------------------------


@checked_class(own=("url", "method", "encoding", "rename", "extra", "headers"))
@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """A request to the backend; its values travel as a form, as JSON, in the query, or as headers (``encoding``).

    ``rename`` maps our names (``refresh_token``, ``username``, ``password``) to those of the backend; ``extra`` adds
    values. ``scheme`` precedes each value that travels as a header. ``authenticate`` attaches the access token, for a
    logout that needs it. Raise ConfigurationError for a value that cannot work.
    """

    url: str
    method: str = "POST"
    encoding: Encoding = "json"
    rename: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    scheme: str = ""
    authenticate: bool = False

    def __post_init__(self) -> None:
        _require(isinstance(self.url, str) and bool(self.url), f"RequestTemplate.url must be a URL, not {self.url!r}")
        _require(is_token(self.method), f"RequestTemplate.method must be a method such as POST, not {self.method!r}")
        encodings = get_args(Encoding)
        _require(
            self.encoding in encodings,
            f"RequestTemplate.encoding must be one of {', '.join(encodings)}, not {self.encoding!r}",
        )
        for name in ("rename", "extra", "headers"):
            _require(isinstance(getattr(self, name), Mapping), f"RequestTemplate.{name} must be a mapping")
        for name in ("rename", "headers"):
            _require(_is_text_mapping(getattr(self, name)), f"RequestTemplate.{name} must map text to text")

    def build(self, values: Mapping[str, object], headers: Mapping[str, str] | None = None) -> HttpRequest:
        """Return the request with *values* and additional *headers*."""
        sent = {self.rename.get(name, name): value for name, value in values.items()} | dict(self.extra)
        head = {"accept": "application/json", **_lower_case_names(headers or {}), **_lower_case_names(self.headers)}
        if self.encoding == "query":
            separator = "&" if "?" in self.url else "?"
            return HttpRequest(self.method, self.url + separator + urlencode(sent), head)
        if self.encoding == "header":
            own = {name.lower(): f"{self.scheme} {value}".lstrip() for name, value in sent.items()}
            return HttpRequest(self.method, self.url, head | own)
        if self.encoding == "form":
            head["content-type"] = "application/x-www-form-urlencoded"
            return HttpRequest(self.method, self.url, head, urlencode(sent).encode())
        head["content-type"] = "application/json"
        return HttpRequest(self.method, self.url, head, json.dumps(sent).encode())


@dataclass(frozen=True, slots=True)
class MfaChallenge:
    """A response to a right password that wants a code too: its ``kind`` (``totp``), and a ``hint`` for the user."""

    token: str = field(repr=False)
    kind: str = ""
    hint: str = ""


UNKNOWN_CLIENT_ERRORS = ("invalid_client", "unauthorized_client")  # RFC 6749 §5.2
TEMPORARY_ERRORS = ("server_error", "temporarily_unavailable", "slow_down")  # RFC 6749 §4.1.2.1, RFC 8628 §3.5
SUCCESS = ResponseMatch(frozenset(range(200, 300)))
INVALID_GRANT_STATUSES = frozenset({400, 401}) | frozenset(range(200, 300))  # some servers say it in a 200
INVALID_GRANT = ResponseMatch(INVALID_GRANT_STATUSES, "error", frozenset({"invalid_grant"}))
MAX_DESCRIPTION_CHARS = 300
MAX_WORD_CHARS = 100
MIN_SECRET_CHARS = 8  # a shorter secret may be a part of any word


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one backend speaks. The defaults are those of OAuth 2.0 bearer tokens; five lines describe most others.

    ``scheme`` precedes the token in ``header``; None takes it from the token response (``token_type``), and so does
    ``TokenFields.prefix``, to the letter. ``challenge`` is a ResponseMatch, or a function of the status and headers of
    a 401; None is a 401 for our scheme (RFC 6750 §3). ``reason_field`` is the path of the word that says why a session
    is over. ``origins`` are those that get tokens, by default that of ``refresh``.

    ``repeated_refresh`` is what the server does with a refresh that it gets twice: ``idempotent``, it knows the
    idempotency key and responds the same; ``forgiving``, it accepts a used refresh token for some seconds; ``strict``,
    it takes it for stolen, and ends the session. ``learn``: forgiving, until a response repeats the key.

    A challenge in a body is looked for in responses of ``body_types``, and in their first ``max_body_bytes`` bytes: a
    response that announces more stays unread.

    Raise ConfigurationError for a value that cannot work.
    """

    refresh: RequestTemplate
    login: RequestTemplate | None = None
    mfa: RequestTemplate | None = None
    logout: RequestTemplate | None = None
    tokens: TokenFields = TokenFields()
    header: str = "Authorization"
    scheme: str | None = "Bearer"
    challenge: ResponseMatch | Callable[[HttpResponse], bool] | None = None
    succeeded: ResponseMatch = SUCCESS
    ends_session: ResponseMatch = INVALID_GRANT
    repeated_refresh: RepeatedRefresh = "learn"
    login_failed: ResponseMatch = field(default_factory=lambda: ResponseMatch.of(401, 403))
    reason_field: str = "reason"
    origins: tuple[str, ...] = ()
    body_types: tuple[str, ...] = ("application/json", "application/problem+json", "text/json")
    max_body_bytes: int = MAX_BODY_BYTES
    login_endpoints: LoginEndpoints | None = None

    def __post_init__(self) -> None:
        _require(
            self.login_endpoints is None or isinstance(self.login_endpoints, LoginEndpoints),
            f"Dialect.login_endpoints must be LoginEndpoints(…), not {self.login_endpoints!r}",
        )
        for name in ("refresh", "login", "mfa", "logout"):
            value = getattr(self, name)
            _require(
                isinstance(value, RequestTemplate) or (value is None and name != "refresh"),
                f"Dialect.{name} must be a RequestTemplate(url, …), not {value!r}",
            )
        for name in ("succeeded", "ends_session", "login_failed"):
            value = getattr(self, name)
            _require(
                isinstance(value, ResponseMatch), f"Dialect.{name} must be a ResponseMatch.of(status, …), not {value!r}"
            )
        _require(
            self.challenge is None or isinstance(self.challenge, ResponseMatch) or callable(self.challenge),
            f"Dialect.challenge must be a ResponseMatch.of(status, …) or a function, not {self.challenge!r}",
        )
        _require(isinstance(self.tokens, TokenFields), f"Dialect.tokens must be TokenFields(…), not {self.tokens!r}")
        _require(is_token(self.header), f"Dialect.header must be the name of a header, not {self.header!r}")
        _require(
            self.scheme is None or isinstance(self.scheme, str), f"Dialect.scheme must be text, not {self.scheme!r}"
        )
        _require(
            isinstance(self.reason_field, str),
            f"Dialect.reason_field must be a dotted path as text, not {self.reason_field!r}",
        )
        kinds = get_args(RepeatedRefresh)
        _require(
            self.repeated_refresh in kinds,
            f"Dialect.repeated_refresh must be one of {', '.join(kinds)}, not {self.repeated_refresh!r}",
        )
        for name in ("origins", "body_types"):
            _require(_is_text_tuple(getattr(self, name)), f"Dialect.{name} must be a tuple of text: ({name!r}, …)")
        _require(
            isinstance(self.max_body_bytes, int) and self.max_body_bytes > 0,
            f"Dialect.max_body_bytes must be a positive number, not {self.max_body_bytes!r}",
        )

    def header_value(self, tokens: Tokens) -> str:
        """Return the value of ``header`` for a request that is sent with *tokens*."""
        if self.tokens.prefix:
            return tokens.token_type + tokens.access_token
        if tokens.is_bound:
            return f"{BOUND_SCHEME} {tokens.access_token}"  # RFC 9449 §7.1
        scheme = tokens.token_type if self.scheme is None else self.scheme
        return f"{scheme} {tokens.access_token}" if scheme else tokens.access_token

    # ---- challenges --------------------------------------------------------------------------------------------

    @property
    def reads_body(self) -> bool:
        """Whether a challenge is in the body of a response."""
        return isinstance(self.challenge, ResponseMatch) and self.challenge.reads_body

    def may_challenge(self, status: int) -> bool:
        """Return whether a response with this status can be a challenge."""
        if not isinstance(self.challenge, ResponseMatch):
            return status == 401
        return self.challenge.status is None or status in self.challenge.status

    def may_read_body(self, headers: Mapping[str, str]) -> bool:
        """Return whether a response with these headers (names in lower case) may be read for a challenge (rule 2)."""
        length = headers.get("content-length", "0")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in self.body_types or not (length.isascii() and length.isdigit()):
            return False
        return float(length) <= self.max_body_bytes  # int refuses thousands of digits

    def is_challenge(self, response: HttpResponse, *, is_bound: bool = False) -> bool:
        """Return whether *response* rejects the access token of its request, which was bound to a key or not."""
        if isinstance(self.challenge, ResponseMatch):
            return self.challenge.matches(response)
        if self.challenge is None:
            return is_bearer_challenge(response, BOUND_SCHEME if is_bound else self.scheme or "bearer")
        return self.challenge(response)

    # ---- refresh -----------------------------------------------------------------------------------------------

    def refresh_request(self, tokens: Tokens, idempotency_key: str) -> HttpRequest:
        """Return the request that refreshes *tokens* (RFC 6749 §6)."""
        return self.refresh.build(
            {"refresh_token": tokens.refresh_token or ""},
            {"idempotency-key": f'"{idempotency_key}"'},  # rule 3
        )

    def server_kind(self, tokens: Tokens) -> ServerKind:
        """Return what the server that issued *tokens* does with a refresh that it gets twice."""
        if self.repeated_refresh == "learn":
            return "idempotent" if tokens.idempotent else "forgiving"  # rule 3
        return self.repeated_refresh

    def read_refresh_response(
        self, response: HttpResponse, *, idempotency_key: str = "", secrets: tuple[str, ...] = ()
    ) -> RefreshOutcome:
        """Return what *response* to a refresh with *idempotency_key* means. No error repeats *secrets*."""
        secrets = (*secrets, *self.client_secrets())
        if self.ends_session.matches(response):
            return GrantRejected(self._reason(response, secrets), _describe_error(response, secrets))
        if self.succeeded.matches(response):
            try:
                granted = TokenResponse.from_response(response.parsed(), self.tokens)
                return replace(granted, idempotent=_confirms(response, idempotency_key))
            except BadResponse as error:
                if not _oauth_error(response):
                    return _unreadable_response(response, error)
        # rule 1; behind a gateway that gave up (502, 504), the server may have carried the refresh out
        why = _describe_error(response, secrets)
        return Indeterminate(why, response.status in (502, 504), retry_after_seconds(response))

    def client_secrets(self) -> tuple[str, ...]:
        """Return what the client authenticates with, in each spelling in which a server may repeat it."""
        found: list[str] = []
        for template in filter(None, (self.refresh, self.login)):
            found += [str(template.extra.get("client_secret") or ""), *_basic_secrets(template.headers)]
        return tuple(dict.fromkeys(filter(None, found)))

    def _reason(self, response: HttpResponse, secrets: tuple[str, ...]) -> str:
        """Return the word for why *response* ends the session."""
        word = value_at(response.parsed(), self.reason_field) if self.reason_field else None
        if not _is_word(word) and self.ends_session.field == "error":
            word = _oauth_error(response)
        return str(word) if _is_word(word) and not _has_secret(str(word), secrets) else "invalid_grant"

    # ---- login and logout --------------------------------------------------------------------------------------

    def login_request(self, username: str, password: str, extra: Mapping[str, object]) -> HttpRequest:
        """Return the login request. Raise ConfigurationError if the dialect has none."""
        if self.login is None:
            raise ConfigurationError("this dialect has no login: pass tokens to session.import_tokens(...)")
        return self.login.build({"username": username, "password": password, **extra})

    def mfa_request(self, challenge: MfaChallenge, code: str) -> HttpRequest:
        """Return the request that sends *code* for *challenge*. Raise ConfigurationError if the dialect has none."""
        if self.mfa is None:
            raise ConfigurationError("the server wants a code, and this dialect has no mfa=RequestTemplate(...)")
        return self.mfa.build({"mfa_token": challenge.token, "code": code})

    def read_login_response(
        self, response: HttpResponse, *, secrets: tuple[str, ...] = ()
    ) -> TokenResponse | MfaChallenge:
        """Return the tokens of a login, or the challenge that wants a code. *secrets* are texts that no error repeats.

        Raise LoginRefused, TryLater, InvalidRequest or ConfigurationError (BadResponse).
        """
        if challenge := _mfa_challenge(response):
            return challenge
        secrets = (*secrets, *self.client_secrets())
        error = _oauth_error(response)
        if self.login_failed.matches(response) and error not in UNKNOWN_CLIENT_ERRORS:
            raise LoginRefused("the login was refused: wrong name or password")
        if self.succeeded.matches(response):
            try:
                return TokenResponse.from_response(response.parsed(), self.tokens)
            except BadResponse:
                if not error:
                    raise
        if response.status == 429 or response.status >= 500 or error in TEMPORARY_ERRORS:
            raise TryLater(_describe_error(response, secrets), retry_after=retry_after_seconds(response))
        if error in PROOF_ERRORS:
            raise proof_refused(_describe_error(response, secrets))
        if error in UNKNOWN_CLIENT_ERRORS:
            raise ConfigurationError(f"the server does not allow this client to log in with a password: {error}")
        if error in ("access_denied", "invalid_grant"):
            raise LoginRefused("the login was refused: wrong name or password")
        raise InvalidRequest(f"the server did not understand the login: {_describe_error(response, secrets)}")

    def logout_request(self, tokens: Tokens) -> HttpRequest | None:
        """Return the request that revokes the session of *tokens*; None if the dialect has none."""
        if self.logout is None:
            return None
        headers = {self.header: self.header_value(tokens)} if self.logout.authenticate else {}
        return self.logout.build({"refresh_token": tokens.refresh_token or tokens.access_token}, headers)


def allowed_origins(dialect: Dialect, additional: tuple[str, ...], allow_plain_http: bool) -> frozenset[Origin]:
    """Return the origins that get tokens: those of *dialect* and the *additional* ones.

    Raise ConfigurationError for any URL of the dialect that is not safe for secrets.
    """
    templates = (dialect.refresh, dialect.login, dialect.mfa, dialect.logout)
    urls = [template.url for template in templates if template is not None]
    urls += dialect.login_endpoints.urls if dialect.login_endpoints else ()
    for url in (*urls, *dialect.origins, *additional):
        origin = origin_of(url)
        if not is_secure(origin) and not allow_plain_http:
            raise ConfigurationError(
                f"tokens must not travel in the clear: use https for {origin.host}, or say allow_plain_http=True"
            )
    own = [origin_of(url) for url in (*(dialect.origins or (dialect.refresh.url,)), *additional)]
    return frozenset(Origin(scheme, name, port) for scheme, host, port in own for name in ascii_and_unicode_forms(host))


def proof_refused(said: str) -> ConfigurationError:
    """Return the error of a login without a good proof (RFC 9449 §5); *said* is the server's response in words."""
    return ConfigurationError(
        f"the server wants a proof of a key: pass proof_key to the Session, or --dpop to `unbroken login`; "
        f"behind a proxy the server must know its public URL ({said})"
    )


def _unreadable_response(response: HttpResponse, error: BadResponse) -> Indeterminate:
    """Return what a success without readable tokens means.

    A JSON object comes from the backend, and the dialect is wrong. Anything else may be the page of a proxy.
    """
    if isinstance(response.parsed(), Mapping):
        return Indeterminate(str(error), cause=error, may_retry=False)
    return Indeterminate("the response to the refresh cannot be read", lost=True, cause=error)


def _confirms(response: HttpResponse, idempotency_key: str) -> bool:
    """Return whether *response* repeats *idempotency_key*: then the server knows it (rule 3)."""
    return bool(idempotency_key) and response.headers.get("idempotency-key", "").strip(' "') == idempotency_key


def _mfa_challenge(response: HttpResponse) -> MfaChallenge | None:
    body = response.json()
    token, kind, hint = (value_at(body, name) for name in ("mfa_token", "challenge_type", "hint"))
    if response.status < 400 or value_at(body, "error") != "mfa_required" or not isinstance(token, str):
        return None
    return MfaChallenge(token, _readable(kind), _readable(hint)) if is_safe_in_header(token) else None


def _oauth_error(response: HttpResponse) -> str:
    """Return the ``error`` of an OAuth error (RFC 6749 §5.2), under whatever status it came; "" without one."""
    error = value_at(response.parsed(), "error")
    return error if isinstance(error, str) and _is_word(error) else ""


def _describe_error(response: HttpResponse, secrets: tuple[str, ...]) -> str:
    """Return status, ``error`` and ``error_description`` in words, without the *secrets* that a server may repeat."""
    error = _oauth_error(response)
    error = "" if _has_secret(error, secrets) else error
    description = value_at(response.parsed(), "error_description")
    if isinstance(description, str):
        for secret in sorted(filter(None, secrets), key=len, reverse=True):  # one may be a part of another
            for form in (secret, quote_plus(secret, errors="replace"), quote(secret, errors="replace")):  # as in a form
                description = description.replace(form, "…")
    words = f", error {error!r}" if error else ""
    words += f": {said}" if error and (said := _readable(description)) else ""
    return f"the server responded with status {response.status}{words}"


def _has_secret(word: str, secrets: tuple[str, ...]) -> bool:
    """Return whether *word*, which a server has sent, is one of *secrets*, or contains one that is long enough."""
    return any(secret == word or (len(secret) >= MIN_SECRET_CHARS and secret in word) for secret in secrets)


def _basic_secrets(headers: Mapping[str, str]) -> list[str]:
    """Return the secret in the credentials of HTTP Basic, and the credentials themselves; none without any."""
    value = next((text for name, text in headers.items() if name.lower() == "authorization"), "")
    scheme, _, credentials = value.partition(" ")
    if scheme.lower() != "basic":
        return []
    try:
        secret = b64decode(credentials).decode().partition(":")[2]
    except ValueError:
        return [credentials]
    return [secret, unquote_plus(secret), credentials]


def _is_word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_WORD_CHARS and value.replace("-", "_").isidentifier()


def _readable(value: object) -> str:
    """Return a text of the server's as a person may see it: short, and without control characters."""
    text = value if isinstance(value, str) else ""
    shown = "".join(sign if sign.isprintable() else " " for sign in text[:MAX_DESCRIPTION_CHARS]).strip()
    return shown + "…" if len(text) > MAX_DESCRIPTION_CHARS else shown


def _lower_case_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
