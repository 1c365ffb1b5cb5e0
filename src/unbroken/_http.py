"""HTTP as values, without a connection: requests, responses, challenges, origins, and JSON. Pure.

Origins are compared as parsed values (RFC 6454), never as text.

1. An origin is scheme, host and port; nothing else of a URL counts.
2. Secrets travel over https. Plain http is safe on loopback only: 127.0.0.0/8, ::1, both also as IPv4-mapped IPv6,
   localhost and its subdomains (RFC 6761 §6.3).

JSON of other programs is read so that junk in one value costs that value and nothing else: a token response may hold
anything beside its tokens, and a granted token cannot be granted again.

3. A whole number of thousands of digits is read as a float (which may be infinite): Python refuses to convert it.
4. An object or array that is nested too deeply is read as null.
5. Bytes that are not UTF-8, and control characters in strings, are read as they can be.
6. What is no JSON after that is None. No exception leaves ``parse_json``.
"""

from __future__ import annotations

import ipaddress
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from unbroken.errors import ConfigurationError

__all__ = [
    "DEFAULT_PORTS",
    "MAX_BODY_BYTES",
    "MAX_RETRY_AFTER_SECONDS",
    "HttpRequest",
    "HttpResponse",
    "NotSent",
    "Origin",
    "ResponseLost",
    "ResponseTooLong",
    "Send",
    "ascii_and_unicode_forms",
    "is_loopback",
    "is_safe_in_header",
    "is_secure",
    "is_token",
    "may_be_loopback",
    "origin_of",
    "parse_challenges",
    "parse_json",
    "retry_after_seconds",
]

MAX_BODY_BYTES = 1 << 20  # a token response has a few kilobytes
MAX_RETRY_AFTER_SECONDS = 3600.0
MAX_FORM_FIELDS = 100
MAX_INTEGER_DIGITS = 400  # more than a float can hold
MAX_JSON_DEPTH = 64
FORM = "application/x-www-form-urlencoded"
DEFAULT_PORTS = {"http": 80, "https": 443}
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 §5.6.2
_CHALLENGE_SCHEME = re.compile(rf"\s*(?:,\s*)*({_TOKEN})(?=\s|,|$)(?!\s*=)\s*")
_CHALLENGE_PARAMETER = re.compile(rf'\s*(?:,\s*)*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?=,|$)')
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*\s*(?=,|$)")
# A string without an end takes the rest of the text: else each of its quotes would be tried as another beginning.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


# ---- requests and responses ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request of the library. Its repr shows neither query, headers nor body.

    ``connect_timeout`` bounds the connecting, in seconds; None: only the timeout of the whole request does.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    connect_timeout: float | None = None

    def __repr__(self) -> str:
        return f"<HttpRequest {self.method} {self.url.partition('?')[0]}>"


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One HTTP response: status, headers (names in lower case), and the body if it was read."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)

    def json(self) -> object:
        """Return the body parsed as JSON; None if there is no body or it is not JSON."""
        return parse_json(self.body) if self.body else None

    def parsed(self) -> object:
        """Return the body parsed as its ``Content-Type`` says: the fields of a form, else JSON as ``json`` does."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != FORM or not self.body:
            return self.json()
        try:
            pairs = parse_qsl(self.body.decode("utf-8", "replace"), max_num_fields=MAX_FORM_FIELDS)
        except ValueError:  # too many fields
            return None
        return dict(reversed(pairs))  # the first of a name counts


Send = Callable[[HttpRequest, float], HttpResponse]


class NotSent(Exception):
    """The server was not reached, so the request was certainly not carried out. ``reason`` names the cause in words."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class ResponseLost(Exception):
    """No complete response arrived; the request may have been carried out. ``reason`` names the cause in words."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class ResponseTooLong(ResponseLost):
    """The response has more bytes than are read."""


def is_safe_in_header(value: str) -> bool:
    """Return whether *value* is printable ASCII text."""
    return value.isascii() and value.isprintable()


def retry_after_seconds(response: HttpResponse) -> float:
    """Return the seconds to wait that ``Retry-After`` states (RFC 9110 §10.2.3), at most an hour; 0 without one.

    A date is compared with the ``Date`` of the same response, so that the local clock does not matter.
    """
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    from email.utils import parsedate_to_datetime  # noqa: PLC0415  # slow to import, and dates are rare

    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(response.headers.get("date", ""))
    except (ValueError, TypeError, OverflowError, IndexError, AttributeError):  # what the parser of dates stumbles over
        return 0.0
    return min(max(wait.total_seconds(), 0.0), MAX_RETRY_AFTER_SECONDS)


def is_token(value: object) -> bool:
    """Return whether *value* is a token of HTTP: the name of a method or of a header (RFC 9110 §5.6.2)."""
    return isinstance(value, str) and re.fullmatch(_TOKEN, value) is not None


def parse_challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    """Return the challenges of a ``WWW-Authenticate`` value: each scheme, in lower case, and its parameters.

    Parsing stops at the first thing that is not a challenge; those before it count.
    """
    challenges: list[tuple[str, dict[str, str]]] = []
    position = 0
    while match := _CHALLENGE_SCHEME.match(header, position):
        parameters: dict[str, str] = {}
        position = match.end()
        while parameter := _CHALLENGE_PARAMETER.match(header, position):
            name, quoted, plain = parameter.groups()
            parameters[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            position = parameter.end()
        if not parameters and (token68 := _TOKEN68.match(header, position)) and "=" in token68.group():
            position = token68.end()
        challenges.append((match.group(1).lower(), parameters))
    return challenges


# ---- origins ---------------------------------------------------------------------------------------------------------


class Origin(NamedTuple):
    """An origin (RFC 6454 §4); ``host`` has neither upper-case letters nor brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Return the origin as text (RFC 6454 §6.2): without the default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == DEFAULT_PORTS.get(self.scheme, 0) else f":{self.port}")


def origin_of(url: str) -> Origin:
    """Return the origin of *url*.

    Raise ConfigurationError if it is not an absolute http(s) URL, holds a user name or a password, or has characters
    that must be percent-encoded.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), -1
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"the URL of {parts.hostname} holds a user name or a password: leave them out")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        shown = url.partition("?")[0].rpartition("@")[2]
        raise ConfigurationError(f"{shown!r} is not an absolute http(s) URL")
    if any(sign <= " " or sign == "\x7f" for sign in url) or not (parts.path + parts.query).isascii():
        raise ConfigurationError(f"a URL of {parts.hostname} holds characters that must be percent-encoded")
    return Origin(parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme])


def ascii_and_unicode_forms(host: str) -> set[str]:
    """Return *host* in both forms that HTTP libraries use: in ASCII, and decoded (RFC 5891)."""
    try:
        ascii_name = host.encode("idna").decode()
        return {host, ascii_name, ascii_name.encode().decode("idna")}
    except UnicodeError:
        return {host}


def is_secure(origin: Origin) -> bool:
    """Return whether secrets may be sent to *origin*: over https, or within this machine."""
    return origin.scheme == "https" or is_loopback(origin.host)  # rule 2


def may_be_loopback(host: str) -> bool:
    """Return whether a library may take *host* for this machine, in whatever spelling: ``127.1``, ``localhost.``."""
    name = unicodedata.normalize("NFKC", host).lower().rstrip(".")
    with suppress(ValueError):  # it is no number
        name = _address_in_numbers(name)
    return is_loopback(name) or name in ("0.0.0.0", "::", "::ffff:0:0", "::ffff:0.0.0.0")  # noqa: S104  # compared


def _address_in_numbers(name: str) -> str:
    """Return the IPv4 address that some resolvers read in numbers: ``127.1``, ``0x7f.1``. Raise ValueError."""
    parts = name.split(".", 4)
    *first, last = [int(part, 16 if part.startswith("0x") else 8 if part.startswith("0") else 10) for part in parts]
    return str(ipaddress.IPv4Address(sum(byte << 24 - 8 * place for place, byte in enumerate(first)) + last))


def is_loopback(host: str) -> bool:
    """Return whether *host* (without port and brackets) names this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


# ---- JSON ------------------------------------------------------------------------------------------------------------


def parse_json(data: bytes) -> object:
    """Return the value that *data* spells; None if it is no JSON (rule 6)."""
    try:
        text = data.decode(json.detect_encoding(data), "replace").removeprefix("\ufeff")  # rule 5
        try:
            return _DECODER.decode(text)
        except RecursionError:
            return _DECODER.decode(_without_depths(text))
    except (ValueError, RecursionError):
        return None


def _read_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else float(digits)  # rule 3


_DECODER = json.JSONDecoder(parse_int=_read_integer, strict=False)


def _without_depths(text: str) -> str:
    """Return *text* with null in place of what is nested more than ``MAX_JSON_DEPTH`` deep (rule 4)."""
    kept: list[str] = []
    depth = position = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        if (sign := match.group()) in ("[", "{"):
            depth += 1
            if depth == MAX_JSON_DEPTH + 1:
                kept.append(text[position : match.start()] + "null")
        elif sign in ("]", "}"):
            depth -= 1
            if depth == MAX_JSON_DEPTH:
                position = match.end()
    return "".join(kept) + text[position:] if depth <= MAX_JSON_DEPTH else ""
