"""The browser module as each framework sends it: its encodings, its ETags, its source map."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.support.faces import Wire, authenticate
from unbroken.server import Endpoints, MemorySessionStore, Sessions
from unbroken.server.http.messages import Request
from unbroken.server.http.static import PARTS, integrity_of, module_integrity, module_source, module_url

MODULE, SOURCE_MAP = "/auth/unbroken.js", "/auth/unbroken.js.map"
MAX_SENT_BYTES = {
    "unbroken.js": 9472,
    "unbroken-core.js": 6144,
    "unbroken-axios.js": 1024,
    "unbroken-stores.js": 1024,
    "unbroken-dpop.js": 2048,
}
ORIGIN = "https://app.example.com"


@pytest.mark.parametrize("path", [MODULE, SOURCE_MAP])
def test_a_client_that_accepts_gzip_gets_the_module_compressed(wire: Wire, path: str) -> None:
    with wire.http.stream("GET", path, headers={"accept-encoding": "br, gzip"}) as sent:
        raw = b"".join(sent.iter_raw())
    plain = wire.http.get(path, headers={"accept-encoding": "identity"})
    assert (sent.headers["content-encoding"], sent.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert int(sent.headers["content-length"]) == len(raw) < len(plain.content)
    assert gzip.decompress(raw) == plain.content
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == "Accept-Encoding"
    assert int(plain.headers["content-length"]) == len(plain.content)
    assert plain.headers["cache-control"] == sent.headers["cache-control"] == "public, max-age=3600"
    assert plain.headers["x-content-type-options"] == sent.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_the_module_is_small_javascript_on_the_wire(wire: Wire, part: str) -> None:
    with wire.http.stream("GET", f"/auth/{part}", headers={"accept-encoding": "gzip"}) as sent:
        raw = b"".join(sent.iter_raw())
    assert len(raw) <= MAX_SENT_BYTES[part]
    assert sent.headers["content-type"].startswith("text/javascript")
    assert gzip.decompress(raw) == module_source(part)
    assert integrity_of(gzip.decompress(raw)) == module_integrity(part)
    assert wire.http.get(module_url(part=part)).content == module_source(part)


def test_the_source_map_of_the_module_is_json_beside_it(wire: Wire) -> None:
    sent = wire.http.get(SOURCE_MAP)
    assert sent.headers["content-type"].startswith("application/json")
    assert "src/session.js" in sent.json()["sources"]
    assert module_source().endswith(b"sourceMappingURL=unbroken.js.map")
    assert json.loads(sent.content) == sent.json()


@pytest.mark.parametrize("path", [MODULE, SOURCE_MAP])
def test_each_encoding_has_an_etag_of_its_own_that_is_revalidated(wire: Wire, path: str) -> None:
    tags = {coding: wire.http.head(path, headers={"accept-encoding": coding}).headers["etag"] for coding in CODINGS}
    assert len(set(tags.values())) == len(CODINGS)
    for coding in CODINGS:
        for other, tag in tags.items():
            for known in (tag, f'"another", W/{tag}'):
                again = wire.http.get(path, headers={"accept-encoding": coding, "if-none-match": known})
                assert again.status_code == (304 if coding == other else 200)
                assert again.headers["etag"] == tags[coding]
                assert again.headers["vary"] == "Accept-Encoding"
                assert (again.content == b"") is (coding == other)


CODINGS = ("identity", "gzip")


@pytest.mark.parametrize("coding", CODINGS)
def test_head_has_the_headers_of_get_and_no_body(wire: Wire, coding: str) -> None:
    asked = wire.http.head(MODULE, headers={"accept-encoding": coding})
    got = wire.http.get(MODULE, headers={"accept-encoding": coding})
    assert (asked.status_code, asked.content) == (200, b"")
    for name in ("content-type", "content-length", "etag", "vary", "cache-control"):
        assert asked.headers[name] == got.headers[name]
    assert asked.headers.get("content-encoding") == got.headers.get("content-encoding")


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("br;q=1.0, *;q=0.1", True),
        ("gzip;q=1", True),
        ("", False),
        ("identity", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("notgzip", False),
    ],
)
def test_accept_encoding_decides_by_its_weights(accepted: str, is_compressed: bool) -> None:
    endpoints = Endpoints(Sessions(MemorySessionStore()), authenticate)
    response = endpoints.handle_blocking(Request("GET", MODULE, {"accept-encoding": accepted}))
    assert response is not None
    assert (response.headers.get("content-encoding") == "gzip") is is_compressed
    assert (response.body == module_source()) is not is_compressed


def test_pages_of_allowed_origins_may_load_the_module_and_caches_keep_them_apart() -> None:
    endpoints = Endpoints(Sessions(MemorySessionStore()), authenticate, origins=[ORIGIN])
    response = endpoints.handle_blocking(Request("GET", MODULE, {"origin": ORIGIN, "accept-encoding": "gzip"}))
    assert response is not None
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert response.headers["vary"] == "Accept-Encoding, Origin"
    other = endpoints.handle_blocking(Request("GET", MODULE, {"origin": "https://evil.example"}))
    assert other is not None
    assert "access-control-allow-origin" not in other.headers
