"""What a subject may have now: ``scopes_of``, a function of the application, asked whenever a token is made.

That is at a login, at the MFA step, at each refresh, for a ticket, and when somebody asks about a token; before
anything is spent. ``core/scope.py`` has the rules of what follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable

from unbroken.errors import ConfigurationError
from unbroken.server.application import call_application
from unbroken.server.worker_pool import STORE_POOL

__all__ = ["SCOPE_WORD", "Allowed", "ScopesOf", "rights_of"]

ScopesOf = Callable[[str], Collection[str] | Awaitable[Collection[str]]]
Allowed = Callable[[str], Awaitable[Collection[str]]]  # of a subject
SCOPE_WORD = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3


def rights_of(scopes_of: ScopesOf) -> Allowed:
    """Return a function that asks *scopes_of*, in the way of ``call_application``, and checks what it returns."""

    async def allowed(subject: str) -> tuple[str, ...]:
        return _checked_words(await call_application("scopes_of", STORE_POOL, scopes_of, subject))

    return allowed


def _checked_words(found: object) -> tuple[str, ...]:
    """Return the words of scope in *found*, each once. Raise ConfigurationError for anything else.

    A set has no order: its words are sorted, so that the same rights make the same scope.
    """
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise ConfigurationError("scopes_of must return a list of words, such as ['read', 'write']")
    words = list(found)
    if wrong := [word for word in words if not isinstance(word, str) or not SCOPE_WORD.fullmatch(word)]:
        raise ConfigurationError(f"scopes_of must return words without spaces and quotes, not {wrong[0]!r}")
    return tuple(dict.fromkeys(sorted(words) if isinstance(found, set | frozenset) else words))
