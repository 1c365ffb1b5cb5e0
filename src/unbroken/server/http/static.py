"""The browser module, served by the endpoints: ``GET {prefix}/unbroken.js``, its other parts and their source maps.

1. Clients that accept gzip get it compressed; it is compressed once per process. Each encoding has an ETag of its own
   (RFC 9110 §8.8.3.3), and ``Vary`` names the header that decides.
2. Browsers keep a response for an hour, then revalidate it by its ETag. A page that wants a new release at once uses
   ``module_url``, which ends in ``?v=`` and a word that changes with the content.
3. The files hold no secret and are the same for everyone. Pages of other origins may load them if they are among
   ``origins``.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from unbroken.server.http.messages import Request, Response, Route

__all__ = ["BrowserModule", "integrity_of", "module_integrity", "module_source", "module_url"]

MODULE = "unbroken.js"
PARTS = (MODULE, "unbroken-core.js", "unbroken-axios.js", "unbroken-stores.js", "unbroken-dpop.js")
MEDIA_TYPES = {".js": "text/javascript; charset=utf-8", ".map": "application/json"}
HEADERS = {"cache-control": "public, max-age=3600", "x-content-type-options": "nosniff", "vary": "Accept-Encoding"}


def module_url(prefix: str = "/auth", part: str = MODULE) -> str:
    """Return the URL of the module of this release, or of another *part* of it, below the endpoints' *prefix*."""
    return f"{prefix}/{part}?v={_digest(part)}"


def module_integrity(part: str = MODULE) -> str:
    """Return the ``integrity`` value of the module of this release or of a *part* (W3C Subresource Integrity)."""
    return integrity_of(module_source(part))


def module_source(part: str = MODULE) -> bytes:
    """Return the module of this release, or another *part* of it: one minified ES module."""
    return _content(part)


def integrity_of(content: bytes) -> str:
    """Return the ``integrity`` value of *content*."""
    return "sha384-" + base64.b64encode(hashlib.sha384(content).digest()).decode()


class BrowserModule:
    """The routes of the module, of its other parts and of their source maps."""

    def __init__(self) -> None:
        self.routes = (
            *(Route("GET", f"/{part}", self._browser_module) for part in PARTS),
            *(Route("GET", f"/{part}.map", self._browser_module_map) for part in PARTS),
        )

    async def _browser_module(self, request: Request, _: str) -> Response:
        return _response(request.path.rpartition("/")[2], request)

    async def _browser_module_map(self, request: Request, _: str) -> Response:
        return _response(request.path.rpartition("/")[2], request)


@dataclass(frozen=True, slots=True)
class _Representation:
    """One encoding of a file (RFC 9110 §3.2)."""

    body: bytes
    headers: dict[str, str]


def _response(name: str, request: Request) -> Response:
    found = _representation(name, "gzip" if _accepts_gzip(request.headers.get("accept-encoding", "")) else "")
    known = (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(","))
    if found.headers["etag"] in known:  # rule 2
        return Response(304, {header: found.headers[header] for header in (*HEADERS, "etag")})
    return Response(200, found.headers, found.body)


def _accepts_gzip(header: str) -> bool:
    """Whether an ``Accept-Encoding`` *header* allows gzip (RFC 9110 §12.5.3); an entry for ``gzip`` outranks ``*``."""
    weights: dict[str, bool] = {}
    for entry in header.lower().split(","):
        coding, *parameters = (part.strip() for part in entry.split(";"))
        weights[coding] = not any(parameter.replace(" ", "").rstrip("0") in ("q=", "q=0.") for parameter in parameters)
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))


@cache
def _representation(name: str, encoding: str) -> _Representation:
    headers = {"content-type": MEDIA_TYPES[os.path.splitext(name)[1]], **HEADERS}
    if not encoding:
        return _Representation(_content(name), {**headers, "etag": f'"{_digest(name)}"'})
    body = gzip.compress(_content(name), 9, mtime=0)
    return _Representation(body, {**headers, "etag": f'"{_digest(name)}-gzip"', "content-encoding": encoding})  # rule 1


@cache
def _content(name: str) -> bytes:
    return files("unbroken").joinpath("browser", name).read_bytes()


@cache
def _digest(name: str) -> str:
    return hashlib.sha256(_content(name)).hexdigest()[:16]
