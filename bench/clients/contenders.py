"""The contenders: ours, then every other client, then the HTTP libraries alone."""

from __future__ import annotations

import importlib
import inspect
import json
from dataclasses import dataclass
from typing import Any

from bench.clients.start import Client, Start


@dataclass(frozen=True)
class Contender:
    """A client that makes requests. ``made_by`` names the function that makes it; ``shares``: tokens, through a file.

    ``stack``: the HTTP library it uses, for the comparison with that library alone.
    """

    name: str
    made_by: str
    stack: str
    blocks: bool = False
    shares: bool = False

    @property
    def ours(self) -> bool:
        return self.made_by.startswith("ours.")

    @property
    def kind(self) -> str:
        return "threads" if self.blocks else "tasks"

    async def build(self, start: Start) -> Client:
        """Return the client, made inside an event loop if it needs one."""
        module, function = self.made_by.split(".")
        made: Any = getattr(importlib.import_module(f"bench.clients.{module}"), function)(start)
        client: Client = await made if inspect.isawaitable(made) else made
        return client


OURS = (
    Contender("unbroken.httpx", "ours.httpx_sync", "httpx", blocks=True, shares=True),
    Contender("unbroken.httpx2", "ours.httpx2_sync", "httpx2", blocks=True, shares=True),
    Contender("unbroken.requests", "ours.requests_sync", "requests", blocks=True, shares=True),
    Contender("unbroken.httpx", "ours.httpx_async", "httpx", shares=True),
    Contender("unbroken.httpx2", "ours.httpx2_async", "httpx2", shares=True),
    Contender("unbroken.aiohttp", "ours.aiohttp_async", "aiohttp", shares=True),
)
PEERS = (
    Contender("Authlib, httpx", "peers_httpx.authlib_httpx", "httpx", blocks=True),
    Contender("Authlib, httpx2", "peers_httpx.authlib_httpx2", "httpx2", blocks=True),
    Contender("Authlib, requests", "peers_requests.authlib", "requests", blocks=True),
    Contender("requests-oauthlib", "peers_requests.requests_oauthlib", "requests", blocks=True),
    Contender("requests_oauth2client", "peers_requests.requests_oauth2client", "requests", blocks=True),
    Contender("google-auth", "peers_requests.google_auth", "requests", blocks=True),
    Contender("httpx-auth (password)", "peers_httpx.httpx_auth_sync", "httpx", blocks=True, shares=True),
    Contender("httpx docs pattern", "peers_httpx.httpx_docs", "httpx", blocks=True),
    Contender("singleflight-auth, httpx", "peers_httpx.singleflight_httpx", "httpx", blocks=True, shares=True),
    Contender("singleflight-auth, requests", "peers_requests.singleflight", "requests", blocks=True, shares=True),
    Contender("naive flag and queue", "peers_requests.naive_queue", "requests", blocks=True),
    Contender("Authlib, httpx", "peers_httpx.authlib_httpx_async", "httpx"),
    Contender("Authlib, httpx2", "peers_httpx.authlib_httpx2_async", "httpx2"),
    Contender("google-auth, its credentials", "peers_aiohttp.google_stock", "aiohttp"),
    Contender("google-auth, async credentials", "peers_aiohttp.google_custom", "aiohttp"),
    Contender("httpx-auth (password)", "peers_httpx.httpx_auth_async", "httpx", shares=True),
    Contender("httpx docs pattern", "peers_httpx.httpx_docs_async", "httpx"),
    Contender("singleflight-auth, httpx", "peers_httpx.singleflight_httpx_async", "httpx", shares=True),
    Contender("MCP SDK", "peers_httpx.mcp_sdk", "httpx2"),
    Contender("aiohttp cookbook", "peers_aiohttp.cookbook", "aiohttp"),
    Contender("aiohttp example", "peers_aiohttp.example", "aiohttp"),
    Contender("aiohttp by hand, no lock", "peers_aiohttp.no_lock", "aiohttp"),
    Contender("naive flag and queue", "peers_httpx.naive_queue", "httpx"),
    Contender("naive shared promise", "peers_httpx.naive_promise", "httpx"),
)
BARE = (
    Contender("httpx alone", "bare.httpx_sync", "httpx", blocks=True),
    Contender("httpx2 alone", "bare.httpx2_sync", "httpx2", blocks=True),
    Contender("requests alone", "bare.requests_sync", "requests", blocks=True),
    Contender("httpx alone", "bare.httpx_async", "httpx"),
    Contender("httpx2 alone", "bare.httpx2_async", "httpx2"),
    Contender("aiohttp alone", "bare.aiohttp_async", "aiohttp"),
)
BY_MAKER = {one.made_by: one for one in (*OURS, *PEERS, *BARE)}


def as_json(start: Start) -> str:
    """Return *start* as JSON, for the command line of a cell."""
    return json.dumps(vars(start))
