"""The public names of the Python package: what ``__all__`` of each public module has."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from werkzeug.local import LocalProxy

from scripts.reference.markdown import NOTE, anchor, cell, code, prose, table
from scripts.reference.signatures import default_of, signature_of
from unbroken import UnbrokenError

__all__ = ["MODULES", "page"]

MODULES = {
    "The client": ("unbroken", "unbroken.events", "unbroken.client.stores"),
    "HTTP clients": ("unbroken.httpx2", "unbroken.httpx", "unbroken.requests", "unbroken.aiohttp", "unbroken.mcp"),
    "The server": ("unbroken.server", "unbroken.server.events", "unbroken.verifier"),
    "Frameworks": (
        "unbroken.starlette",
        "unbroken.fastapi",
        "unbroken.flask",
        "unbroken.django",
        "unbroken.django.decorators",
        "unbroken.django.rest",
    ),
    "Observing and testing": ("unbroken.prometheus", "unbroken.otel", "unbroken.testing"),
}
INHERITED = (Exception, dict, tuple, object)  # what Python's own classes have is not repeated


def page() -> str:
    """Return the page: each module, its names, and their members."""
    _set_up_django()
    parts = ["# Python: all names", NOTE, INTRODUCTION]
    for group, modules in MODULES.items():
        parts += [f"## {group}", *(part for name in modules for part in _module(name))]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """Each name that a program may use, with its signature and what it says about itself. A method `x` that
asks a store or a server has a twin `ax` for event loops, which takes and returns the same. Times are in seconds.
[The errors](errors.md) and [the settings of each face](settings.md) have pages of their own."""


def _set_up_django() -> None:
    """Let the modules for Django be imported: they want settings."""
    from django import setup  # noqa: PLC0415
    from django.conf import settings  # noqa: PLC0415  # of the dev tools

    if not settings.configured:
        apps = ["django.contrib.contenttypes", "django.contrib.auth", "unbroken.django"]
        settings.configure(INSTALLED_APPS=apps, UNBROKEN={"STORE": "memory:"}, SECRET_KEY="none")
        setup()


def _module(name: str) -> Iterator[str]:
    module = import_module(name)
    yield f"### {name}"
    if module.__doc__:
        yield prose(module.__doc__).split("\n\n")[0]
    shown = set()
    for public in module.__all__:
        value = getattr(module, public)
        home = HOMES.setdefault(_key(public, value), f"{name}.{public}")
        if home == f"{name}.{public}":
            yield from _name(name, public, value)
        elif home not in shown:
            shown.add(home)
            yield f"`{public}`: see [`{home}`](#{anchor(home)})."


HOMES: dict[object, str] = {}


def _key(public: str, value: Any) -> object:
    if isinstance(value, LocalProxy):  # it is somebody only while a request is served
        return public
    return (getattr(value, "__module__", ""), getattr(value, "__qualname__", public), public)


def _name(module: str, public: str, value: Any) -> Iterator[str]:
    yield f"#### {module}.{public}"
    if isinstance(value, LocalProxy):
        kind = import_module(module).__annotations__[public]
        yield f"A proxy for the current request, as Flask's own: `{public}: {kind}`."
        return
    if inspect.isclass(value):
        yield from _class(public, value)
    elif callable(value) and hasattr(value, "__name__"):
        yield _block(signature_of(public, value))
        yield prose(value.__doc__) or NO_WORDS
    elif callable(value) and type(value).__module__.startswith("unbroken"):  # such as oauth2, which has methods too
        yield _block(signature_of(public, value))
        yield prose(type(value).__call__.__doc__ or type(value).__doc__)
        yield table(("member", "what it does"), _members(type(value)))
    else:
        yield prose(_own_doc(value)) or _block(f"{public} = {_alias(value)}")


NO_WORDS = "It has no words of its own: its name and its types say what it is."


def _class(public: str, value: Any) -> Iterator[str]:
    if not issubclass(value, Exception) and not getattr(value, "_is_protocol", False):
        yield _block(signature_of(public, value))
    if (doc := _own_doc(value)) and not doc.startswith(f"{public}("):  # dataclasses write such a docstring
        yield prose(doc)
    if fields := _fields(value):
        yield table(("field", "type"), fields)
    if members := list(_members(value)):
        yield table(("member", "what it does"), members)


def _own_doc(value: Any) -> str:
    doc = value.__dict__.get("__doc__") if hasattr(value, "__dict__") else None
    return doc or ""


def _fields(value: Any) -> list[tuple[str, str]]:
    if not dataclasses.is_dataclass(value):
        return []
    return [
        (code(one.name), code(_type(one.type))) for one in dataclasses.fields(value) if not one.name.startswith("_")
    ]


def _type(annotation: object) -> str:
    return re.sub(r"typing\.|collections\.abc\.", "", annotation if isinstance(annotation, str) else str(annotation))


def _members(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the methods and properties of a class, and of its parents in this package."""
    seen: set[str] = set()
    for owner in value.__mro__:
        if owner in INHERITED or owner is UnbrokenError or not owner.__module__.startswith("unbroken"):
            continue
        for name, member in vars(owner).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            if text := _member(name, member):
                yield text


def _member(name: str, member: Any) -> tuple[str, str] | None:
    function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
    if isinstance(member, property):
        return code(name), cell(prose(member.__doc__))
    if not inspect.isfunction(function):
        return None
    doc = prose(function.__doc__)
    if doc.endswith("for event loops.") and name.startswith("a"):
        return code(name), cell(doc)
    signature = signature_of(name, function, skip_first=not isinstance(member, staticmethod))
    return code(signature.replace(",\n)", ")").replace("(\n    ", "(")), cell(doc)


def _alias(value: Any) -> str:
    return re.sub(r"(?:typing|collections\.abc|unbroken(?:\.\w+)*)\.", "", default_of(value))


def _block(text: str) -> str:
    return f"```text\n{text}\n```"
