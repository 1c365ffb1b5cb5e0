"""Is this answer about our access token? Pure reading of an HTTP answer.

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
from collections.abc import Mapping
from dataclasses import dataclass, field

from unbroken.tokens import dig

__all__ = ["Reply", "When", "challenges_bearer", "parse_challenges"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer as far as it was read: its status, its headers (names in lower case), its body if read."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)

    def json(self) -> object:
        """The body as JSON; None when there is none, or it is none."""
        try:
            return json.loads(self.body) if self.body else None
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class When:
    """A condition on an answer, as data: its status, and the value at a dotted ``field`` of its JSON body.

    ``values`` are compared as texts, so that 401 and "401" are the same. ``negate`` turns the comparison of the value
    around, for backends that know one good code and many bad ones.
    """

    status: frozenset[int] | None = None
    field: str = ""
    values: frozenset[str] = frozenset()
    negate: bool = False

    @classmethod
    def of(cls, *status: int, field: str = "", values: tuple[object, ...] = (), negate: bool = False) -> When:
        """A condition in short: ``When.of(401)``, ``When.of(200, field="code", values=(401,))``."""
        return cls(frozenset(status) or None, field, frozenset(map(str, values)), negate)

    @property
    def reads_body(self) -> bool:
        """Whether the body must be read to tell."""
        return bool(self.field)

    def holds(self, reply: Reply) -> bool:
        """Whether *reply* fulfils the condition."""
        if self.status is not None and reply.status not in self.status:
            return False
        if not self.field:
            return True
        body = reply.json()
        if not isinstance(body, Mapping):
            return False
        return (str(dig(body, self.field)) in self.values) is not self.negate


def challenges_bearer(reply: Reply, scheme: str = "bearer") -> bool:
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
