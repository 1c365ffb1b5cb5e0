"""The package for npm: complete, typed, and usable with the bundlers that there are."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.browser.build import BINDINGS, BUILT, ROOT, SOURCES
from tests.browser.project import FRAMEWORKS, install, packed
from tests.support.npm import node_modules
from unbroken.server.http.static import PARTS

PACKAGE: dict[str, Any] = json.loads((BUILT / "package.json").read_text())


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tarball: Path) -> Path:
    return install(tmp_path_factory.mktemp("project") / "app", tarball)


def ran(folder: Path, *command: str | Path, status: int = 0) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


# ---- what is in it ---------------------------------------------------------------------------------------------------


def test_the_package_says_what_it_is() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (PACKAGE["name"], PACKAGE["version"], PACKAGE["license"]) == ("unbroken-session", version, "MIT")
    assert {"repository", "engines", "types", "description"} <= PACKAGE.keys()
    assert (BUILT / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_each_part_can_be_imported_and_has_types() -> None:
    exported = {about["default"] for about in PACKAGE["exports"].values() if isinstance(about, dict)}
    assert exported == {f"./{part}" for part in (*PARTS, *BINDINGS)}
    for about in PACKAGE["exports"].values():
        if isinstance(about, dict):
            assert list(about) == ["types", "default"]
            assert about["types"] == about["default"].replace(".js", ".d.ts")


def test_the_readme_names_each_import() -> None:
    text = (BUILT / "README.md").read_text()
    assert [name for name in PACKAGE["exports"] if name.endswith("json") is False and name[2:] not in text] == []


def test_a_framework_that_is_not_there_is_no_warning() -> None:
    assert set(PACKAGE["peerDependenciesMeta"]) == set(PACKAGE["peerDependencies"])
    assert all(about == {"optional": True} for about in PACKAGE["peerDependenciesMeta"].values())


def test_the_tools_are_pinned_without_a_lock_file_or_a_registry() -> None:
    text = (FRAMEWORKS / "package.json").read_text()
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in json.loads(text)["dependencies"].values())
    assert "://" not in text


def test_the_tarball_has_every_part_and_nothing_else(tarball: Path) -> None:
    with tarfile.open(tarball) as content:
        names = {name.removeprefix("package/") for name in content.getnames()}
    ends = (".js", ".js.map", ".d.ts")
    parts = {part.replace(".js", end) for part in (*PARTS, *BINDINGS) for end in ends}
    assert names == {*parts, "package.json", "README.md", "LICENSE"}


# ---- what others say of it -------------------------------------------------------------------------------------------


def test_publint_and_arethetypeswrong_find_nothing(tarball: Path, project: Path) -> None:
    programs = project / "node_modules" / ".bin"
    assert "All good" in ran(project, programs / "publint", "run", "--strict", "node_modules/unbroken-session")
    ran(project, programs / "attw", tarball, "--profile", "esm-only")  # its exit status says it


def test_vite_webpack_and_esbuild_build_what_runs(project: Path) -> None:
    (project / "bundlers.mjs").write_text((FRAMEWORKS / "bundlers.mjs").read_text())
    came = json.loads(ran(project, "node", "bundlers.mjs").splitlines()[-1])
    assert set(came) == {"vite", "webpack", "esbuild"}
    for name, about in came.items():
        assert (about["kinds"], about["state"]) == (["function"] * 5, "good"), name
    assert came["esbuild"]["unused"] < 200, "what is not used costs nothing"


# ---- types -----------------------------------------------------------------------------------------------------------

USE = """
import { QueryClient } from "@tanstack/react-query";
import { HttpContext, provideHttpClient, withInterceptors } from "@angular/common/http";
import axios from "axios";
import { defineStore } from "pinia";
import { createElement } from "react";
import { createSession, UnbrokenError, type Session } from "unbroken-session";
import { sessionInterceptor, sessionStatus, WITHOUT_SESSION } from "unbroken-session/angular";
import { connectQueries } from "unbroken-session/query";
import { RequireLogin, SessionProvider, useSession as useReact } from "unbroken-session/react";
import { cookieRefresher } from "unbroken-session/server";
import { guardRoutes, sessionPlugin, sessionStore, useSession, wayBack } from "unbroken-session/vue";
import { createApp } from "vue";
import { createRouter, createWebHistory } from "vue-router";

interface User { sub: string; roles: string[] }
const session: Session<User> = createSession<User>({ storage: "cookie" });
const roles: string[] | undefined = session.status.user?.roles;
session.attach(axios);
const router = createRouter({ history: createWebHistory(), routes: [] });
guardRoutes(router, session, { login: "/enter" })();
createApp({}).use(sessionPlugin, session).use(router);
const useStore = defineStore("session", sessionStore(session));
const name: string | undefined = useStore().user?.sub;
const first: string | undefined = useSession<User>().user.value?.roles[0];
const state: "good" | "ageing" | "expired" | "over" = useSession().state.value;
const guarded = createElement(RequireLogin, { login: (back) => back.length, pending: null });
createElement(SessionProvider, { session }, guarded);
const { user, isLoggedIn } = useReact<User>();
connectQueries(new QueryClient(), session)();
provideHttpClient(withInterceptors([sessionInterceptor(session)]));
const sub: string | undefined = sessionStatus(session)().user?.sub;
new HttpContext().set(WITHOUT_SESSION, true);
export const refresh = async () => {
  const { state, headers, setCookie } = await cookieRefresher({ url: "/auth" })(new Headers());
  return state === "over" ? setCookie.length : headers.get("cookie");
};
export const all = [roles, name, first, state, user?.roles, isLoggedIn === true, sub, wayBack("/", "/"), UnbrokenError];
"""
MISTAKES = (
    "session.status.user?.rolez;",
    "useSession<User>().user.value?.rolez;",
    "useSession().isLogedIn;",
    "if (useSession().state.value === 'ended') throw 0;",
    "if (useReact().state === 'ended') throw 0;",
    "useReact<User>().user?.rolez;",
    "useStore().usr;",
    "guardRoutes(router, session, { loginPage: '/login' });",
    "guardRoutes({}, session);",
    "createApp({}).use(sessionPlugin, {});",
    "createElement(RequireLogin, { fallback: null });",
    "connectQueries({}, session);",
    "sessionInterceptor({});",
    "sessionStatus(session)().usr;",
    "cookieRefresher({});",
    "export const wrong = async () => (await cookieRefresher({ url: '' })(new Headers())).state === 'ended';",
)


def compiled(project: Path, files: list[str], **options: object) -> str:
    """What the compiler says, as the strictest of users has it."""
    config = {"extends": str(SOURCES / "tsconfig.json"), "include": files, "exclude": []}
    (project / "tsconfig.json").write_text(json.dumps({**config, "compilerOptions": {"skipLibCheck": True, **options}}))
    command = [node_modules(SOURCES) / ".bin" / "tsc", "-p", project]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False).stdout


def test_the_types_of_the_bindings_fit_their_frameworks_and_find_mistakes(project: Path) -> None:
    (project / "use.ts").write_text(USE)
    assert compiled(project, ["use.ts"]) == ""
    (project / "use.ts").write_text(USE + "\n".join(MISTAKES))
    lines = {int(line) for line in re.findall(r"use\.ts\((\d+),", compiled(project, ["use.ts"]))}
    first = USE.count("\n") + 1
    assert sorted(lines) == list(range(first, first + len(MISTAKES)))


def test_the_published_types_are_sound_themselves(project: Path) -> None:
    """Those of the bindings are compiled with their frameworks above; here they would check all of the frameworks."""
    package = project / "node_modules" / "unbroken-session"
    with_framework = {"unbroken-vue.d.ts", "unbroken-react.d.ts", "unbroken-angular.d.ts"}
    alone = [f"{package}/{file.name}" for file in package.glob("*.d.ts") if file.name not in with_framework]
    assert compiled(project, alone, skipLibCheck=False) == ""
    for file in package.glob("*.d.ts"):
        named = re.findall(r"""from "(\./[^"]+)";""", file.read_text())
        assert [name for name in named if not (package / name).exists()] == []


def test_the_sources_of_the_bindings_have_strict_types(project: Path) -> None:
    folder = project / "src"
    if not folder.exists():
        folder.symlink_to(SOURCES / "src")
    said = compiled(project, ["src/bindings/*.js", "src/globals.d.ts"], preserveSymlinks=True)
    assert said == ""
