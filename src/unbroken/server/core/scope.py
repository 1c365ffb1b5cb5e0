"""The scope of a token: what its session was given, and what its subject may have now (RFC 6749 §3.3 and §6).

*allowed* is what the application says of the subject at this moment; None where it says nothing.

1. A login that asks for no scope is given all that its subject may have, now and later: the scope of its tokens follows
   the subject, up and down. Another client than the server's own gets ``sessions`` and ``introspect``, which run this
   server, only if it asks for them.
2. A login that asks for a scope is given the part of it that is allowed, and never more. If none of it is, the login is
   refused.
3. A refresh gets what its session was given and its subject still may have. That may be nothing: the session lives on,
   with an empty scope, and what is allowed again is there with the next refresh.
4. A refresh may ask for a part (RFC 6749 §6), and gets what is allowed of it. It is refused for more than the session
   was given, and if nothing of the part is allowed.
5. A refresh that is repeated gets no more than the first time: less, if rights have gone meanwhile.
6. A token is *full* if no part was asked for: not at the login, and not at the refresh. Its holder is the user; a
   token with an empty scope that is not full may do less, not more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from unbroken.errors import InvalidScope
from unbroken.server.core.rotation import FIRST_PARTY

__all__ = [
    "ADMINISTRATIVE_SCOPES",
    "INTROSPECT",
    "SESSIONS",
    "TokenScope",
    "granted_scope",
    "remaining_scope",
    "token_scope",
]

SESSIONS = "sessions"  # of tokens that may manage the sessions of their account
INTROSPECT = "introspect"  # of tokens that may ask about the tokens of others
ADMINISTRATIVE_SCOPES = (SESSIONS, INTROSPECT)
FULL_MARK = '"'  # no word of scope has one (RFC 6749 §3.3)


class TokenScope(NamedTuple):
    """The scope of one access token, and whether it is full (rule 6). *is_decided*: by what is allowed now."""

    words: str
    is_full: bool
    is_decided: bool = False

    def encode(self) -> bytes:
        """Return both in one value, as a row keeps them."""
        return (f"{FULL_MARK} {self.words}" if self.is_full else self.words).encode()

    def no_more_than(self, first: bytes | None) -> TokenScope:
        """Return what is in this scope and in *first*, an earlier one as ``encode`` returned it; None: unknown."""
        if first is None:
            return self
        text = first.decode("utf-8", "replace")
        was_full = text.startswith(FULL_MARK)
        before = set(text.removeprefix(FULL_MARK).split())
        words = _joined(word for word in self.words.split() if word in before)
        return TokenScope(words, self.is_full and was_full, self.is_decided)


def granted_scope(asked: str, allowed: Collection[str] | None) -> str:
    """Return the scope that a session is given which has *asked* for one (rules 1 and 2); empty: all, also later.

    Raise InvalidScope if nothing of it is allowed.
    """
    words = dict.fromkeys(asked.split())
    if not words or allowed is None:
        return " ".join(words)
    if found := _joined(word for word in words if word in allowed):
        return found
    raise InvalidScope("this user may not have any of the requested scope")


def token_scope(given: str, allowed: Collection[str] | None, client_id: str, wanted: str | None = None) -> TokenScope:
    """Return the scope of the next token of a session of *client_id* that was *given* a scope (rules 3 and 4).

    *wanted* is the part that a refresh asks for. Raise InvalidScope.
    """
    whole = given.split() or _by_default(allowed or (), client_id)
    part = list(dict.fromkeys((wanted or "").split()))
    if not part:
        words = _joined(word for word in whole if allowed is None or word in allowed)
        return TokenScope(words, not given, allowed is not None)
    if (given or allowed is None) and not set(part) <= set(whole):
        raise InvalidScope("the requested scope exceeds that of the session")
    allowed_part = [word for word in part if word in whole and (allowed is None or word in allowed)]
    if not allowed_part:
        raise InvalidScope("this user may not have any of the requested scope")
    return TokenScope(" ".join(allowed_part), is_full=False, is_decided=allowed is not None)


def remaining_scope(words: str, allowed: Collection[str] | None) -> str:
    """Return the part of a token's scope that is still allowed."""
    return words if allowed is None else _joined(word for word in words.split() if word in allowed)


def _by_default(allowed: Collection[str], client_id: str) -> list[str]:
    """Return what a session has that has asked for nothing (rule 1)."""
    own = (client_id or FIRST_PARTY) == FIRST_PARTY
    return [word for word in allowed if own or word not in ADMINISTRATIVE_SCOPES]


def _joined(words: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(words))
