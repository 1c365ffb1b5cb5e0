"""JSON values that nobody can change: many requests share one verified token.

They are still dicts and lists, so that they compare, print and serialise as such. A copy of one, or what comes out of
pickle, is a plain dict or list again, and belongs to whoever made it.
"""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["frozen"]


def frozen(value: Any) -> Any:
    """*value*, which ``json.loads`` has made, so that no part of it can be changed."""
    if isinstance(value, dict):
        return FrozenDict({name: frozen(part) for name, part in value.items()})
    return FrozenList(map(frozen, value)) if isinstance(value, list) else value


def _refuse(*_: object, **__: object) -> NoReturn:
    raise TypeError("the claims of a token are shared and cannot be changed: change a copy")


class FrozenDict(dict[str, Any]):
    """A JSON object for reading."""

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __copy__(self) -> dict[str, Any]:
        return dict(self)


class FrozenList(list[Any]):
    """A JSON array for reading."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def __copy__(self) -> list[Any]:
        return list(self)
