"""The browser's end, served by the server's: ``GET {prefix}/unbroken.js``, one ES module.

1. What is served is the module of this very release, without its comments, its white space, and the commas and
   semicolons that end a list or a block; no name is changed.
2. Browsers keep it for an hour, then ask by its ETag. A page that wants a new release at once, and the same one for as
   long as it likes, names it: ``module_url`` ends in ``?v=`` and a word that changes with the text.
3. It holds no secret, and is the same for everybody. Pages of other origins may load it if they are among ``origins``.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

from unbroken.server.http.messages import Request, Response, Route

__all__ = ["BrowserModule", "module_url", "served"]

# The words of the source. A slash begins a regular expression after one of ``( , ! &``; elsewhere it divides.
WORDS = re.compile(
    r"""(?P<text>"(?:[^"\\\n]|\\.)*" | `(?:[^`\\]|\\.)*`
             | (?<=[(,!&])/(?![*/])(?:[^/\\\n\[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/)
      | (?P<gap>(?:\s+ | /\*.*?\*/ | //[^\n]*)+)
      | (?P<word>[\w$]+)
      | (?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)
ENDS = {",)", ",]", ",}", ";}"}
HEADERS = {
    "content-type": "text/javascript; charset=utf-8",
    "cache-control": "public, max-age=3600",
    "x-content-type-options": "nosniff",
}


@cache
def served() -> bytes:
    """The module as browsers get it."""
    source = files("unbroken").joinpath("browser", "unbroken.js").read_text(encoding="utf-8")
    return squeezed(source).encode()


def squeezed(source: str) -> str:
    """*source* without comments, and without the spaces, last commas and last semicolons that only people need."""
    kept, gap = [""], False
    for found in WORDS.finditer(source):
        kind, text = found.lastgroup, found.group()
        if kept[-1] + text in ENDS:
            kept.pop()
        if kind != "gap":
            kept.append(" " + text if gap and _would_merge(kept[-1], text) else text)
        gap = kind == "gap"
    return "".join(kept)


def _would_merge(before: str, after: str) -> bool:
    """Whether two words of the source would be read as one without the space between them."""
    return bool(re.search(r"[\w$]$", before) and re.match(r"[\w$]", after)) or before == after in ("+", "-")


@cache
def _tag() -> str:
    return hashlib.sha256(served()).hexdigest()[:16]


def module_url(prefix: str = "/auth") -> str:
    """Where a page finds the module of this release, below the endpoints' *prefix*."""
    return f"{prefix}/unbroken.js?v={_tag()}"


class BrowserModule:
    """The route of the module."""

    def __init__(self) -> None:
        self.routes = (Route("GET", "/unbroken.js", self._browser_module),)

    async def _browser_module(self, request: Request, _: str) -> Response:
        headers = {**HEADERS, "etag": f'"{_tag()}"'}
        known = (one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(","))
        if headers["etag"] in known:
            return Response(304, headers)
        return Response(200, headers, served())
