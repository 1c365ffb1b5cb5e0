"""The committed build of the browser module: current, small, typed, and made of readable sources."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.browser.build import BINDINGS, BUILT, DOCS, INTEGRITY, ROOT, SOURCES, compile_sources, sources_hash
from tests.support.npm import node_modules
from unbroken.server.http.static import PARTS, module_integrity, module_source

MAX_COMPRESSED_BYTES = {
    "unbroken.js": 9472,
    "unbroken-core.js": 6144,
    "unbroken-axios.js": 1024,
    "unbroken-stores.js": 1024,
    "unbroken-dpop.js": 2048,
    **dict.fromkeys(BINDINGS, 1024),
}
MAX_SOURCE_LINES = 200
TYPES = {
    "unbroken.js": "api",
    "unbroken-core.js": "core_alone",
    "unbroken-axios.js": "axios",
    "unbroken-stores.js": "stores",
    "unbroken-dpop.js": "dpop",
    **{part: part.replace("unbroken-", "bindings/").replace(".js", "_api") for part in BINDINGS},
}
RENAMED = {"api": "unbroken.js", "dpop": "unbroken-dpop.js"}
ALL = (*PARTS, *BINDINGS)
IMPORTS = {
    "unbroken-vue.js": {"vue"},
    "unbroken-react.js": {"react"},
    "unbroken-angular.js": {"@angular/common/http", "@angular/core", "rxjs"},
}
SOURCE_FILES = sorted((SOURCES / "src").rglob("*.js"))
FILES = [part.replace(".js", end) for part in ALL for end in (".js", ".js.map", ".d.ts")]


def source_map(part: str = "unbroken.js") -> dict[str, object]:
    return json.loads((BUILT / f"{part}.map").read_text())


# ---- without Node.js -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ALL)
def test_the_build_was_made_of_the_committed_sources(part: str) -> None:
    assert source_map(part)["x_sources"] == sources_hash(), "run scripts/build-browser"


@pytest.mark.parametrize("part", ALL)
def test_the_built_module_is_the_one_that_its_source_map_was_made_for(part: str) -> None:
    built = module_source(part).decode()
    assert source_map(part)["x_module"] == hashlib.sha256(built.encode()).hexdigest(), "run scripts/build-browser"
    assert built.endswith(f"\n//# sourceMappingURL={part}.map")


@pytest.mark.parametrize("part", ALL)
def test_the_built_types_are_the_sources_types(part: str) -> None:
    sources = (SOURCES / "src" / f"{TYPES[part]}.d.ts").read_text()
    assert (BUILT / part.replace(".js", ".d.ts")).read_text() == re.sub(
        r"\.{1,2}/(api|dpop)(\.d\.ts|\.js)", lambda found: f"./{RENAMED[found[1]]}", sources
    )


def test_the_source_maps_hold_every_source_as_committed() -> None:
    found = {}
    for part in ALL:
        sources = source_map(part)
        found |= dict(zip(sources["sources"], sources["sourcesContent"], strict=True))
    assert found == {file.relative_to(SOURCES).as_posix(): file.read_text() for file in SOURCE_FILES}


@pytest.mark.parametrize("part", ALL)
def test_each_part_is_small(part: str) -> None:
    assert len(gzip.compress(module_source(part), 9)) <= MAX_COMPRESSED_BYTES[part]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_nothing(part: str) -> None:
    asked_for = 'import("./unbroken-dpop.js")' if part == "unbroken.js" else ""
    assert not re.search(r"\bimport\b", module_source(part).decode().replace(asked_for, "", 1))


@pytest.mark.parametrize("part", BINDINGS)
def test_a_binding_imports_its_framework_and_nothing_else(part: str) -> None:
    found = re.findall(r"""\b(?:import|from) ?["']([^"']+)["']""", module_source(part).decode())
    assert set(found) == IMPORTS.get(part, set())


def test_the_docs_show_the_integrity_of_the_committed_module() -> None:
    assert INTEGRITY.findall(DOCS.read_text()) == [module_integrity()], "run scripts/build-browser"


@pytest.mark.parametrize("file", SOURCE_FILES, ids=lambda file: file.name)
def test_a_source_file_is_one_subject_with_its_rules_at_the_top(file: Path) -> None:
    text = file.read_text()
    assert text.startswith("/**\n * "), "it begins with what it is about"
    assert len(text.splitlines()) <= MAX_SOURCE_LINES
    cited = set(re.findall(r"// rules? ([\d, and]+)", text.partition("*/")[2]))
    stated = set(re.findall(r"^ \* (\d)\. ", text.partition("*/")[0], re.MULTILINE))
    assert {number for some in cited for number in re.findall(r"\d", some)} == stated, "each rule names its lines"


def test_build_tools_are_pinned_without_a_lock_file_or_a_registry() -> None:
    text = (SOURCES / "package.json").read_text()
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in json.loads(text)["dependencies"].values())
    assert "://" not in text
    assert [*SOURCES.glob("*lock*"), *SOURCES.glob(".npmrc")] == []


# ---- with Node.js ----------------------------------------------------------------------------------------------------


def test_a_new_build_is_the_committed_one(tmp_path: Path) -> None:
    compile_sources(tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (BUILT / name).read_bytes(), f"{name}: run scripts/build-browser"


def compiled(tmp_path: Path, **config: object) -> subprocess.CompletedProcess[str]:
    """Check types by a configuration that extends that of the sources."""
    extended = {"extends": str(SOURCES / "tsconfig.json"), "include": [str(SOURCES / "src")], **config}
    (tmp_path / "tsconfig.json").write_text(json.dumps(extended))
    command = [node_modules(SOURCES) / ".bin" / "tsc", "-p", tmp_path]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_sources_have_strict_types(tmp_path: Path) -> None:
    done = compiled(tmp_path)
    assert done.returncode == 0, done.stdout


USE = """
import { createSession, UnbrokenError, type Events, type Session } from "unbroken-session";
const session: Session = createSession({ storage: "localStorage", window: null, scheme: null });
const platform: typeof fetch = session.fetch;
session.on("over", ({ reason, here }) => console.log(reason.length, here === true, platform));
session.on("refresh", (detail) => detail.state === "failed" && detail.error.retryAfter.toFixed());
session.fetch("/x", { unbroken: false }).then(({ whyNotReplayed }) => whyNotReplayed?.refreshed);
const ended = (error: unknown) => error instanceof UnbrokenError && error.code === "session_over";
const state: "good" | "ageing" | "expired" | "over" = session.status.state;
session.logout().then((confirmed: boolean) => [confirmed, ended, state, {} as Events]);
"""
MISTAKES = (
    'createSession({ storge: "localStorage" });',
    'createSession({ storage: "local" });',
    "createSession({ tokens: { accessToken: 'x' } });",
    "session.on('refreshing', () => {});",
    "session.on('over', ({ reasn }) => reasn);",
    "session.attach({});",
    "if (session.status.state === 'ended') throw 0;",
    "new UnbrokenError('sesion_over', '');",
)


def test_the_published_types_find_the_mistakes_of_their_users(tmp_path: Path) -> None:
    use = tmp_path / "use.ts"
    config = {
        "include": [str(use)],
        "compilerOptions": {"paths": {"unbroken-session": [str(BUILT / "unbroken.d.ts")]}, "noUnusedLocals": False},
    }
    use.write_text(USE)
    done = compiled(tmp_path, **config)
    assert done.returncode == 0, done.stdout
    use.write_text(USE + "\n".join(MISTAKES))
    lines = [int(line) for line in re.findall(r"use\.ts\((\d+),", compiled(tmp_path, **config).stdout)]
    first = USE.count("\n") + 1
    assert sorted(set(lines)) == list(range(first, first + len(MISTAKES)))


def test_the_build_script_is_the_one_that_the_tests_run() -> None:
    assert "tests.browser.build" in (ROOT / "scripts" / "build-browser").read_text()
