"""Names of the embedded accounts: which may be given, and which look alike.

1. A new name is one that RFC 8265 allows (PRECIS, profile UsernameCaseMapped): no invisible characters, no symbols, no
   mixed directions. As there (§3.1), it may consist of several such parts with a space between them.
2. A new name mixes no scripts, but for those that languages mix: UTS 39 §5.2, *Highly Restrictive*. Its digits are of
   one system (§5.3).
3. Two names look alike if they have a skeleton in common (UTS 39 §4), as they are shown or in lower case.
4. An older name that breaks these rules can still log in, change its password and be removed.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache

from unbroken.errors import InvalidRequest

__all__ = ["check_new_name", "folded_name", "is_name", "looks_like"]

MAX_NAME_CHARS = 128
MAX_CACHED_SKELETONS = 100_000
ANY_SCRIPT = {"COMMON", "INHERITED"}
MIXED_SCRIPTS = (  # that languages mix; each also with Latin
    {"LATIN", "HAN", "HIRAGANA", "KATAKANA"},
    {"LATIN", "HAN", "BOPOMOFO"},
    {"LATIN", "HAN", "HANGUL"},
)


def folded_name(name: str) -> str:
    """Return what names are compared by: the same for other cases and widths."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def is_name(name: str) -> bool:
    """Return whether an account may have this name. Bounded, because normalizing takes quadratic time."""
    return 1 <= len(name) <= MAX_NAME_CHARS and name.isprintable() and name == name.strip()


def check_new_name(name: str) -> None:
    """Raise InvalidRequest for a name that no new account may have."""
    if not is_name(name):
        raise InvalidRequest(f"a user name has 1 to {MAX_NAME_CHARS} printable characters and no space at its ends")
    for part in name.split(" "):  # rule 1
        if not part or not _is_username(part):
            raise InvalidRequest(
                "a user name consists of letters, digits and signs that RFC 8265 allows, one space apart"
            )
    if (
        not _has_one_script(name)
        or len({ord(char) - unicodedata.decimal(char) for char in name if char.isdecimal()}) > 1
    ):
        raise InvalidRequest("a user name does not mix scripts: it would look like another one")  # rule 2


def looks_like(name: str, other: str) -> bool:
    """Return whether the two names can be taken for one another (rule 3)."""
    return not skeletons(name).isdisjoint(skeletons(other))


@lru_cache(maxsize=MAX_CACHED_SKELETONS)
def skeletons(name: str) -> frozenset[str]:
    """Return the skeletons of *name*, as it is shown and in lower case."""
    return frozenset(_skeleton(form).casefold() for form in (name, folded_name(name)))


def _skeleton(name: str) -> str:
    """Return the skeleton of UTS 39 §4: every character replaced by the one that it may be taken for."""
    decomposed = unicodedata.normalize("NFD", name)
    visible = (char for char in decomposed if unicodedata.category(char) not in ("Cf", "Cc"))
    return unicodedata.normalize("NFD", "".join(map(_prototype, visible)))


@cache
def _prototype(char: str) -> str:
    """Return what *char* may be taken for.

    The data of ``confusable_homoglyphs`` is symmetric: a character that is no prototype has one entry, its prototype.
    """
    from confusable_homoglyphs.confusables import confusables_data  # noqa: PLC0415  # a file of 900 KB

    entries = confusables_data.get(char, ())
    if len(entries) != 1:
        return char
    target = entries[0]["c"]
    is_pair = len(confusables_data.get(target, ())) == 1 and len(target) == 1  # either may be the prototype
    return str(min(char, target) if is_pair else target.replace("\u200e", ""))


def _is_username(part: str) -> bool:
    from precis_i18n import get_profile  # noqa: PLC0415  # only for new names

    try:
        get_profile("UsernameCaseMapped").enforce(part)
    except UnicodeEncodeError:
        return False
    return True


def _has_one_script(name: str) -> bool:
    from confusable_homoglyphs.categories import alias  # noqa: PLC0415  # only for new names

    scripts = {str(alias(char)).upper() for char in unicodedata.normalize("NFC", name)} - ANY_SCRIPT
    return len(scripts) <= 1 or any(scripts <= mixed for mixed in MIXED_SCRIPTS)
