"""An MCP server of the real SDK, over streamable HTTP, that is protected by a token verifier."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer

__all__ = ["Verify", "free_listener", "mcp_server", "whoever"]

Verify = Callable[[str], Awaitable[AccessToken | None]]


def whoever(token: str, subject: str = "ada") -> AccessToken:
    return AccessToken(token=token, client_id="app", scopes=[], subject=subject)


def free_listener() -> socket.socket:
    """A socket on loopback whose port is known before the server is made."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    return listening


@contextmanager
def mcp_server(issuer: str, verify: Verify) -> Iterator[str]:
    """Run an MCP server with one tool, ``add``; yield its URL. It names *issuer* as its authorization server."""

    class Verifier:
        async def verify_token(self, token: str) -> AccessToken | None:
            return await verify(token)

    listening = free_listener()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    settings = AuthSettings(issuer_url=issuer, resource_server_url=url, validate_token_resource=False)
    server = MCPServer("sums", token_verifier=Verifier(), auth=settings, log_level="CRITICAL")

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    app: Any = server.streamable_http_app()
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=0)
    runner = uvicorn.Server(config)
    thread = threading.Thread(target=runner.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not runner.started and thread.is_alive():
            time.sleep(0.005)
        yield url
    finally:
        runner.should_exit = True
        thread.join(10)
        listening.close()
