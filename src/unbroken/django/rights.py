"""What Django knows of a user's rights, as scope: for ``SCOPES_OF``, which is asked at the login and at each refresh.

    UNBROKEN = {..., "SCOPES_OF": "unbroken.django.permissions_of"}

    @access_token_required(scope="shop.change_order")

1. A user who is not active, or gone, has none.
2. A scope is a word: a name with spaces, quotes or other letters than ASCII is percent-encoded.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from unbroken.django.runtime import runtime

__all__ = ["groups_of", "permissions_of"]

SAFE = "!#$&'()*+,/:;=?@[]^`{|}~"  # of RFC 6749 §3.3, beside letters, digits and ``_.-``


def permissions_of(subject: str) -> list[str]:
    """Return the permissions of the user, ``app.codename``: own ones, and those of the user's groups. Blocks."""
    user = runtime().users.get(subject)
    return _words(user.get_all_permissions()) if user else []


def groups_of(subject: str) -> list[str]:
    """Return the names of the user's groups. Blocks."""
    user = runtime().users.get(subject)
    return _words(user.groups.values_list("name", flat=True)) if user else []


def _words(names: Iterable[str]) -> list[str]:
    return sorted(quote(name, safe=SAFE) for name in names)
