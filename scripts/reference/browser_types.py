"""The browser module: what its files of types declare."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import unbroken
from scripts.reference.markdown import NOTE, cell, code, table

__all__ = ["page"]

FOLDER = Path(unbroken.__file__).parent / "browser"
INTRODUCTION = """What the module declares for TypeScript. [In the browser](../browser.md) explains it with examples.
Times are in seconds; a name with `?` may be left out."""
COMMENT = r"(?:/\*\*(?P<doc>(?:(?!\*/).)*)\*/\s*)?"
DECLARATION = re.compile(
    rf"^{COMMENT}export (?:declare )?(?P<kind>interface|class|function|const|type) (?P<name>\w+)",
    re.MULTILINE | re.DOTALL,
)
MEMBER = re.compile(
    r"^(?:  /\*\*(?P<doc>(?:(?!\*/).)*)\*/\s*\n)?  (?P<text>(?:readonly )?\w+[^\n]*?);$", re.MULTILINE | re.DOTALL
)
CODE = re.compile(r'^  \| "(?P<name>\w+)"(?: /\*\*(?P<doc>.*?)\*/)?', re.MULTILINE)


def page() -> str:
    """Return the page: a section for each file, and a part for each declaration."""
    parts = ["# The browser module: all names", NOTE, INTRODUCTION]
    for file, name in _files():
        parts += [f"## {name}", *_declarations((FOLDER / file).read_text("utf-8"))]
    return "\n\n".join(parts) + "\n"


def _files() -> list[tuple[str, str]]:
    """Return the files of types that the package for npm exports, and what programs import them as."""
    package = json.loads((FOLDER / "package.json").read_text("utf-8"))
    exports = [(name, one["types"]) for name, one in package["exports"].items() if "types" in one]
    return [(types.removeprefix("./"), package["name"] + name.removeprefix(".")) for name, types in exports]


def _declarations(text: str) -> Iterator[str]:
    found = list(DECLARATION.finditer(text))
    for match, after in zip(found, [*found[1:], None], strict=True):
        source = text[match.end("doc") if match["doc"] else match.start() : after.start() if after else None]
        source = source.lstrip("*/\n ")
        yield f"### {match['name']}" if match["kind"] != "function" else f"### {match['name']}()"
        if match["doc"]:
            yield _words(match["doc"])
        if match["kind"] in ("interface", "class"):
            if "extends" in (head := _head(source)) or "<" in head:
                yield head
            members = [_member(member["text"], member["doc"]) for member in MEMBER.finditer(_indented(source))]
            if members:
                yield table(("member", "meaning"), members)
        elif match["kind"] == "type" and (codes := list(CODE.finditer(source))):
            yield table(("value", "meaning"), [(code(one["name"]), cell(_words(one["doc"] or ""))) for one in codes])
        else:
            yield f"```ts\n{source.strip()}\n```"


def _head(source: str) -> str:
    head = " ".join(source.partition("{")[0].split())
    return f"`{head}`"


def _indented(source: str) -> str:
    """Return the members of a declaration, each with its comment at the same depth."""
    return source.partition("{")[2].rpartition("}")[0]


def _member(text: str, doc: str | None) -> tuple[str, str]:
    return code(" ".join(text.split())), cell(_words(doc or ""))


def _words(doc: str) -> str:
    return " ".join(re.sub(r"^\s*\*( |$)", "", line).strip() for line in doc.strip().splitlines()).strip()
