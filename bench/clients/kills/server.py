"""Token servers of others, by their manners; ``python -m bench.clients.kills.server DESCRIPTOR …`` serves sockets.

| manner        | a refresh                                                                    |
|---------------|------------------------------------------------------------------------------|
| strict        | uses the refresh token up when it arrives; its use again revokes the login   |
| forgiving     | the same, but for ten seconds a used token gets the newest tokens once more  |
| github-like   | uses it up; answers are forms, and errors come with status 200               |
| keycloak-like | gives a new refresh token, and accepts the old ones as before                |
| google-like   | gives no new refresh token                                                   |

Each login remembers its refreshes: when, with which idempotency key, and what came of it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from urllib.parse import parse_qsl, urlencode

from bench.clients.backend import JSON, Backend, Family, HttpResponse

MANNERS = ("strict", "forgiving", "github-like", "keycloak-like", "google-like")
ONCE = ("strict", "github-like")  # nothing helps where the only answer with the new tokens is gone
GRACE_SECONDS = 10.0
FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass
class Refresh:
    """One refresh. *verdict*: granted, again, or refused."""

    at: float
    key: str
    verdict: str


@dataclass
class Login(Family):
    """A login at a server with a manner."""

    manner: str = "strict"
    log: list[Refresh] = field(default_factory=list)
    issued: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.grace = GRACE_SECONDS if self.manner == "forgiving" else 0.0

    def grant(self) -> dict[str, object]:
        granted = super().grant()
        self.issued.add(self.refresh_token)
        return granted

    def refresh_with(self, token: str, key: str) -> dict[str, object] | None:
        """Return the tokens for a refresh token, None if it is refused, and remember it."""
        generation = self.refresh_token
        granted = self._by_manner(token)
        is_new = self.refresh_token != generation or self.manner == "google-like"
        verdict = "refused" if granted is None else "granted" if is_new else "again"
        self.log.append(Refresh(time.time(), key, verdict))
        return granted

    def _by_manner(self, token: str) -> dict[str, object] | None:
        if self.manner == "keycloak-like":
            return self.grant() if token in self.issued else None
        if self.manner == "google-like":
            newest = self.newest()
            return {name: newest[name] for name in newest if name != "refresh_token"} if token in self.issued else None
        if self.manner == "github-like" and token != self.refresh_token:
            self.reuses += 1
            return None
        return self.refresh(token)


class Servers(Backend):
    """All logins, whatever the manner of their server."""

    async def response(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> HttpResponse | None:
        if target.partition("?")[0] == "/token":
            return await self._refresh(dict(parse_qsl(body.decode())), headers.get("idempotency-key", ""))
        return await super().response(method, target, headers, body)

    def _family(self, method: str, query: dict[str, str], body: bytes) -> HttpResponse:
        if method == "POST" and not query:
            login = Login(next(self._names), **json.loads(body))
            self._families[login.name] = login
            return 200, JSON, json.dumps({"family": login.name, **login.grant()}).encode()
        known = self._families[query["name"]]
        log = [asdict(one) for one in known.log] if isinstance(known, Login) else []
        return 200, JSON, json.dumps({"reuses": known.reuses, "revoked": known.revoked, "log": log}).encode()

    async def _refresh(self, form: dict[str, str], key: str) -> HttpResponse:
        token = form.get("refresh_token", "")
        login = next((one for one in self._families.values() if isinstance(one, Login) and token in one.issued), None)
        granted = login.refresh_with(token, key) if login else None
        await asyncio.sleep(login.token_delay if login else 0.0)
        said = granted or {"error": "invalid_grant"}
        if login and login.manner == "github-like":
            return 200, FORM, urlencode(granted or {"error": "bad_refresh_token"}).encode()
        return 200 if granted else 400, JSON, json.dumps(said).encode()


async def main() -> None:
    backend = Servers()
    servers = [
        await asyncio.start_server(backend.serve, sock=socket.socket(fileno=int(descriptor)), backlog=4096)
        for descriptor in sys.argv[1:]
    ]
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until its parent ends
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
