"""``scripts/build-browser``: build the browser module from ``browser/src``; tests tell whether the build is current.

1. The tools come from npm, pinned in ``browser/package.json``, and are installed outside the repository.
2. ``docs/browser.md`` shows the ``integrity`` value of the module; a build writes it there.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

from tests.support.npm import node_modules, run
from unbroken.server.http.static import integrity_of

__all__ = ["BINDINGS", "BUILT", "DOCS", "SOURCES", "build", "compile_sources", "sources_hash"]

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "browser"
BUILT = ROOT / "src" / "unbroken" / "browser"
DOCS = ROOT / "docs" / "browser.md"
BINDINGS = tuple(f"unbroken-{name}.js" for name in ("vue", "react", "query", "angular", "server"))  # that npm gets
INTEGRITY = re.compile(r"sha384-[A-Za-z0-9+/=]{64}")


def sources_hash() -> str:
    """Return the SHA-256 of everything that a build is made of: the sources, the build program and its tools."""
    files = [*(SOURCES / "src").rglob("*.js"), *(SOURCES / "src").rglob("*.d.ts"), *SOURCES.glob("build.mjs")]
    digest = hashlib.sha256()
    for file in sorted([*files, SOURCES / "package.json"]):
        digest.update(f"{file.relative_to(SOURCES).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def compile_sources(out: Path) -> None:
    """Write the module, its source map and its types into *out*."""
    run(SOURCES, "node", "build.mjs", str(node_modules(SOURCES)), sources_hash(), str(out))


def build() -> None:
    """Build the module that is committed."""
    compile_sources(BUILT)
    value = integrity_of((BUILT / "unbroken.js").read_bytes())
    DOCS.write_text(INTEGRITY.sub(value, DOCS.read_text()))
    for part in sorted(BUILT.glob("*.js")):
        print(f"{len(gzip.compress(part.read_bytes(), 9)):6} bytes compressed  {part.name}")  # noqa: T201


if __name__ == "__main__":
    build()
