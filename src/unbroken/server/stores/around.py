"""A store around another one: it does what that one does, but for what it says itself."""

from __future__ import annotations

from typing import Any

from unbroken.server.stores import Store

__all__ = ["Around"]


class Around:
    """All that *inside* has, asked for once and then at hand: what passes through costs nothing."""

    def __init__(self, inside: Store) -> None:
        self.inside = inside

    def __repr__(self) -> str:
        return repr(self.inside)

    def __getattr__(self, name: str) -> Any:
        if name == "inside":  # it is being copied, and has nothing yet
            raise AttributeError(name)
        found = getattr(self.inside, name)
        self.__dict__[name] = found
        return found
