"""The server of a page as a process: ``python -m bench.browser.backend`` prints its port and serves until killed.

1. It is the server of the other clients' benchmark, with pages and their modules beside the API.
2. A dead token is refused at once; an answer of the API takes 10 ms, a refresh as long as its family says.
3. Each widespread snippet finds the refresh and the challenge that it was written for.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from bench.browser.parts import BUNDLED, PAGE, node_modules
from bench.clients.backend import JSON, HttpResponse
from bench.clients.backend import Backend as Families
from unbroken.server.http.static import module_source

API = 0.01
SNIPPETS = PAGE.parents[2] / "tests" / "browser" / "page" / "snippets.js"
IMPORTS = {
    "@alova/shared": "/npm/@alova/shared/dist/alova-shared.esm.js",
    "@badgateway/oauth2-client": "/npm/@badgateway/oauth2-client/dist/index.js",
    "alova": "/npm/alova/dist/alova.esm.js",
    "alova/client": "/npm/alova/dist/clienthook/index.esm.js",
    "alova/fetch": "/npm/alova/dist/adapter/fetch.esm.js",
    "axios": "/npm/axios/dist/esm/axios.js",
    "axios-auth-refresh": "/npm/axios-auth-refresh/dist/index.esm.js",
    "destr": "/npm/destr/dist/index.mjs",
    "jwt-decode": "/npm/jwt-decode/build/esm/index.js",
    "ky": "/npm/ky/distribution/index.js",
    "ofetch": "/npm/ofetch/dist/index.mjs",
    "oidc-client-ts": "/npm/oidc-client-ts/dist/esm/oidc-client-ts.js",
    "ufo": "/npm/ufo/dist/index.mjs",
    BUNDLED: f"/npm/{BUNDLED}.js",
}
HTML = f"""<!doctype html><meta charset="utf-8"><title>bench</title>
<script type="importmap">{json.dumps({"imports": IMPORTS})}</script>
<script type="module" src="/page.js"></script>"""
SCRIPT = {"content-type": "text/javascript", "cache-control": "max-age=3600"}
FRESH = {**JSON, "cache-control": "no-store"}

Named = dict[str, str]


def _json(status: int, body: object, headers: Mapping[str, str] = FRESH) -> HttpResponse:
    return status, headers, json.dumps(body).encode()


def session_headers(access: str, refresh: str) -> Mapping[str, str]:
    """How the server of supertokens-website hands out tokens."""
    about = {"uid": "ada", "ate": int((time.time() + 3600) * 1000), "up": {}}
    front = base64.b64encode(json.dumps(about).encode()).decode()
    return {**FRESH, "st-access-token": access, "st-refresh-token": refresh, "front-token": front}


# Of each path that refreshes: where the refresh token is (query, JSON body, headers), what is granted, what is refused.
Refresh = tuple[Callable[[Named, Named, Mapping[str, str]], str], Callable[[Named], HttpResponse], HttpResponse]
REFRESHES: Mapping[str, Refresh] = {
    "/user/refresh": (
        lambda query, body, headers: query["refresh_token"],
        lambda new: _json(200, new),
        _json(401, {"statusCode": 401}),
    ),
    "/admin/refreshToken": (
        lambda query, body, headers: query["refreshToken"],
        lambda new: _json(
            200,
            {
                "code": 200,
                "data": {"tokenHead": "Bearer ", "token": new["access_token"], "refreshToken": new["refresh_token"]},
            },
        ),
        _json(200, {"code": 402}),
    ),
    "/token/refresh": (
        lambda query, body, headers: query["refreshToken"],
        lambda new: _json(200, {"code": 200, "data": _camel(new)}),
        _json(400, {"code": 402}),
    ),
    "/auth/session/refresh": (
        lambda query, body, headers: headers["authorization"].removeprefix("Bearer "),
        lambda new: _json(200, {}, session_headers(new["access_token"], new["refresh_token"])),
        _json(401, {}),
    ),
    **dict.fromkeys(
        ("/auth/refresh-token", "/refresh-token"),
        (
            lambda query, body, headers: body["refreshToken"],
            lambda new: _json(200, _camel(new)),
            _json(401, {}),
        ),
    ),
}
# Of each path of the API, the answer to a token that is no good.
CHALLENGES = {
    "/api": _json(401, {"statusCode": 401}, {**FRESH, "www-authenticate": 'Bearer error="invalid_token"'}),
    "/code": _json(200, {"code": 401, "data": None}),
    "/own": _json(400, {"code": 401}),
}


def _camel(new: Named) -> Named:
    return {"accessToken": new["access_token"], "refreshToken": new["refresh_token"]}


class Backend(Families):
    """The families of tokens, and what a page finds beside them."""

    def __init__(self) -> None:
        super().__init__()
        self._npm = node_modules()
        self._own = {
            "/unbroken.js": module_source(),
            "/snippets.js": SNIPPETS.read_bytes(),
            **{f"/{file.name}": file.read_bytes() for file in PAGE.glob("*.js")},
        }

    async def response(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> HttpResponse | None:
        path, _, text = target.partition("?")
        query = dict(parse_qsl(text))
        if path == "/page":
            return 200, {"content-type": "text/html"}, HTML.encode()
        if path in self._own or path.startswith("/npm/"):
            return 200, SCRIPT, self._own.get(path) or (self._npm / path.removeprefix("/npm/")).read_bytes()
        if path == "/auth/login":
            return _json(200, {}, session_headers(query["access"], query["refresh"]))
        if path in CHALLENGES:
            return await self._api(path, headers)
        if path in REFRESHES:
            return await self._refresh(path, query, headers, body)
        return await super().response(method, target, headers, body)

    async def _api(self, path: str, headers: Mapping[str, str]) -> HttpResponse:
        bearer = {"authorization": f"Bearer {headers.get('token', '')}"} if path == "/own" else headers
        if self._owner(bearer) is None:
            return CHALLENGES[path]
        await asyncio.sleep(API)
        return _json(200, {"code": 200, "msg": "", "data": "ok"})

    async def _refresh(self, path: str, query: Named, headers: Mapping[str, str], body: bytes) -> HttpResponse:
        presented, granted, refused = REFRESHES[path]
        token = presented(query, json.loads(body or b"{}"), headers)
        answer = await self._token({"grant_type": "refresh_token", "refresh_token": token})
        if answer is None or answer[0] != 200:
            return refused
        return granted(json.loads(answer[2]))


async def main() -> None:
    server = await asyncio.start_server(Backend().serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended: Any = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until its parent ends
    await ended
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
