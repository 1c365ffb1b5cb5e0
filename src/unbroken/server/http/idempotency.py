"""The header ``Idempotency-Key``: a string of RFC 9651 §3.3.3 (draft-ietf-httpapi-idempotency-key-header §2.1).

1. ``"a"`` and ``a`` are one key: many clients leave out the quotes. Parameters after it are ignored.
2. What is neither is no key: the refresh goes on as one without a key, as with servers that do not know the header.
"""

from __future__ import annotations

import re

__all__ = ["read_idempotency_key"]

_QUOTED = r'"((?:[ !#-\[\]-~]|\\["\\])*+)"'
_BARE = r"([!#$%&'*+./0-9:=A-Z^_`a-z|~-]++)"
_PARAMETERS = (
    r'(?: *; *[a-z*][a-z0-9_.*-]*+(?:=(?:"(?:[ !#-\[\]-~]|\\["\\])*+"|[!#$%&\'*+./0-9:=?@A-Z^_`a-z|~-]++))?)*+'
)
_KEY = re.compile(rf" *(?:{_QUOTED}|{_BARE}){_PARAMETERS} *")


def read_idempotency_key(header: str | None) -> str | None:
    """Return the key that the value of the header has; None without one (rule 2)."""
    match = _KEY.fullmatch(header or "")
    if match is None:
        return None
    quoted, bare = match.groups()
    return (bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)) or None  # rule 1
