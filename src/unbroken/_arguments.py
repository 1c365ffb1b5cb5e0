"""Types of arguments, checked where the public API begins: a wrong one is a ConfigurationError that names it.

1. The annotations say what is right: there is no second list. They are read at the first call.
2. Checked are texts, numbers, functions, collections of texts, and classes of ours and of the standard library. Of a
   protocol, an object must have the members. Values have their own checks, behind this one.
3. What runs with every request is not wrapped: it checks where it would fail (``wrong_type``).
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import cache, wraps
from typing import Any, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from unbroken.errors import ConfigurationError

__all__ = ["checked", "checked_class", "did_you_mean", "wrong_type"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Check = Callable[[object], bool]
Names = tuple[str, ...]
MAX_SHOWN_CHARS = 40
WORDS = {str: "a text", bytes: "bytes", int: "a whole number", float: "a number", bool: "True or False",
         timedelta: "a timedelta", type(None): "None"}  # fmt: skip


def wrong_type(name: str, wanted: str, value: object) -> ConfigurationError:
    """Return the error for the argument *name*, which must be *wanted*. It shows a wrong word."""
    chooses = "'" in wanted  # among words; any other text may be a secret
    shown = repr(value[:MAX_SHOWN_CHARS]) if chooses and isinstance(value, str) else type(value).__name__
    return ConfigurationError(f"{name} must be {wanted}, not {shown}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the question that an error asks after an unknown *name*; empty if none of the *known* ones is near."""
    from difflib import get_close_matches  # noqa: PLC0415  # only for errors

    near = get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}? " if near else ""


def checked(*own: str) -> Callable[[F], F]:
    """Make a function raise ConfigurationError for an argument of a wrong type; it checks its *own* ones itself."""

    def wrap(function: F) -> F:
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def checking(*args: Any, **kwargs: Any) -> Any:
                _check(function, own, args, kwargs)
                return await function(*args, **kwargs)

        else:

            @wraps(function)
            def checking(*args: Any, **kwargs: Any) -> Any:
                _check(function, own, args, kwargs)
                return function(*args, **kwargs)

        return checking  # type: ignore[return-value]  # it has the signature of the function

    return wrap


def checked_class(*methods: str, own: Names = ()) -> Callable[[type[T]], type[T]]:
    """Make ``__init__`` of a class and its *methods* check their arguments; ``__init__`` checks its *own* itself."""

    def wrap(cls: type[T]) -> type[T]:
        constructor = ["__init__"] if "__init__" in vars(cls) else []
        for name in constructor:
            setattr(cls, name, checked(*own)(vars(cls)[name]))
        for name in methods:
            setattr(cls, name, checked()(vars(cls)[name]))
        return cls

    return wrap


def _check(function: Callable[..., Any], own: Names, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    positional, by_name = _checks(function, own)
    for check, value in zip(positional, args, strict=False):
        if not check[1](value):
            raise wrong_type(check[0], check[2], value)
    for name, value in kwargs.items():
        check = by_name.get(name)
        if check is not None and not check[1](value):
            raise wrong_type(name, check[2], value)


@cache
def _checks(function: Callable[..., Any], own: Names) -> tuple[list[Any], dict[str, Any]]:
    """Return the checks of the positional parameters, in order, and of all by name: (name, check, what it wants)."""
    hints = _hints(function)
    by_name: dict[str, Any] = {}
    positional: list[Any] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hint = Any if parameter.name in own else hints.get(parameter.name, Any)
        by_name[parameter.name] = (parameter.name, *_check_of(hint))
        if parameter.kind is not parameter.KEYWORD_ONLY:
            positional.append(by_name[parameter.name])
    return positional, by_name


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except NameError:  # one is a name for type checkers alone: that argument is checked elsewhere
        names, hints = vars(sys.modules[function.__module__]), {}
        for name, text in function.__annotations__.items():
            with suppress(NameError):
                hints[name] = eval(text, names)  # noqa: S307  # an annotation of ours
        return hints


# ---- what an annotation wants ----------------------------------------------------------------------------------------


def _check_of(hint: Any) -> tuple[Check, str]:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is None:
        hint = type(None)
    if origin in (Union, types.UnionType):
        return _any_of([_check_of(one) for one in arguments])
    if origin is Literal:
        return lambda value: value in [one for one in arguments if type(one) is type(value)], _or(map(repr, arguments))
    if origin is type or hint is Any or hint is object or isinstance(hint, TypeVar):
        return lambda _: True, ""
    if (origin or hint) in (Callable, types.FunctionType):
        return callable, "a function"
    found = origin or hint
    is_collection = isinstance(found, type) and found.__module__ in ("builtins", "collections.abc")
    if is_collection and issubclass(found, Iterable) and not issubclass(found, (str, bytes)):
        return _collection(found, arguments)
    return _instance(found)


def _any_of(checks: list[tuple[Check, str]]) -> tuple[Check, str]:
    words = dict.fromkeys(word for _, word in checks if word)
    return lambda value: any(check(value) for check, _ in checks), _or(words)


def _collection(found: type, arguments: tuple[Any, ...]) -> tuple[Check, str]:
    """A collection, and not a text in the place of a list of texts; of texts, each is one."""
    of_texts = not issubclass(found, Mapping) and arguments[:1] == (str,)

    def check(value: object) -> bool:
        if not isinstance(value, found) or isinstance(value, (str, bytes)):
            return False
        return not (of_texts and isinstance(value, Collection)) or all(isinstance(one, str) for one in value)

    return check, "a mapping" if issubclass(found, Mapping) else "a list of texts" if of_texts else "a list"


def _instance(found: Any) -> tuple[Check, str]:
    if found is float:
        return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool), WORDS[float]
    if found is int:
        return lambda value: isinstance(value, int) and not isinstance(value, bool), WORDS[int]
    if not isinstance(found, type) or found.__module__.partition(".")[0] not in {"unbroken", *sys.stdlib_module_names}:
        # Rule 2: others may stand in for classes of other libraries, but no number, text, list.
        return lambda value: type(value).__module__ != "builtins", f"a {getattr(found, '__name__', 'value')}"
    if Protocol in found.__bases__ and found.__module__.startswith("unbroken"):
        members = [name for name in dir(found) if not name.startswith("_")] or ["__call__"]
        return lambda value: all(hasattr(value, name) for name in members), f"a {found.__name__}"
    return lambda value: isinstance(value, found), WORDS.get(found, f"a {found.__name__}")


def _or(words: Any) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
