"""Signatures as a reader would write them: annotations as in the source, defaults short."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any

__all__ = ["default_of", "signature_of"]

LINE_CHARS = 110
MAX_DEFAULT_CHARS = 40


def signature_of(name: str, function: Any, *, skip_first: bool = False) -> str:
    """Return ``name(parameters) -> what``, on several lines where one is too long."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return name
    parameters = list(signature.parameters.values())[1 if skip_first else 0 :]
    shown = _with_marks(parameters)
    result = (
        "" if signature.return_annotation in (inspect.Parameter.empty, "None", None) else signature.return_annotation
    )
    arrow = f" -> {_annotation(result)}" if result != "" else ""
    line = f"{name}({', '.join(shown)}){arrow}"
    if len(line) <= LINE_CHARS:
        return line
    return f"{name}(\n" + "".join(f"    {one},\n" for one in shown) + f"){arrow}"


def default_of(value: object) -> str:
    """Return a default value in short: the same on every machine."""
    if isinstance(value, Mapping) and not value:
        return "{}"
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    if not isinstance(value, type) and (dataclasses.is_dataclass(value) or hasattr(value, "_fields")):
        return _short_instance(value)
    if isinstance(value, FunctionType | BuiltinFunctionType | type):
        return f"{value.__module__}.{value.__name__}" if value.__module__ == "time" else value.__name__
    return re.sub(r"<(?:factory|[\w.]+ object at 0x[0-9a-f]+)>", "…", repr(value))


def _short_instance(value: Any) -> str:
    """Return the call that makes *value*, with what differs from the defaults of its class, if that is short."""
    defaults = inspect.signature(type(value)).parameters
    changed = ", ".join(
        f"{name}={default_of(getattr(value, name))}"
        for name, one in defaults.items()
        if getattr(value, name, one.default) != one.default
    )
    return f"{type(value).__name__}({changed if len(changed) <= MAX_DEFAULT_CHARS else '…'})"


def _with_marks(parameters: list[inspect.Parameter]) -> list[str]:
    shown, has_star = [], False
    for one in parameters:
        has_star = has_star or one.kind is one.VAR_POSITIONAL
        if one.kind is one.KEYWORD_ONLY and not has_star:
            shown.append("*")
            has_star = True
        shown.append(_parameter(one))
    return shown


def _parameter(one: inspect.Parameter) -> str:
    stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    text = stars + one.name
    has_annotation = one.annotation is not inspect.Parameter.empty
    text += f": {_annotation(one.annotation)}" if has_annotation else ""
    if one.default is inspect.Parameter.empty:
        return text
    return text + (" = " if has_annotation else "=") + default_of(one.default)


def _annotation(annotation: object) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"ForwardRef\('(.*?)'\)", r"\1", text)
    return re.sub(r"\b(?:typing|collections\.abc|unbroken(?:\.\w+)*)\.(?=[A-Z])", "", text)
