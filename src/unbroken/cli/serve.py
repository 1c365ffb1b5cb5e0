"""``unbroken serve``: the endpoints over a store and the embedded accounts, by uvicorn."""

from __future__ import annotations

import json
import os
import socket
from typing import Annotated

import typer
import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from unbroken.cli.options import Duration, Store
from unbroken.errors import ConfigurationError
from unbroken.server import Accounts, Policy, Sessions, open_store
from unbroken.starlette import routes

__all__ = ["app", "listen", "serve"]

SETTINGS = "UNBROKEN_SERVE_SETTINGS"  # how the command tells its worker processes what they serve


def serve(
    store: Store = "sqlite:///unbroken.db",
    host: Annotated[str, typer.Option(envvar="UNBROKEN_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="UNBROKEN_PORT", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 8400,
    access_ttl: Annotated[float, Duration("UNBROKEN_ACCESS_TTL", "Life of an access token.")] = 1800,
    refresh_ttl: Annotated[float, Duration("UNBROKEN_REFRESH_TTL", "Life of an unused refresh token.")] = 7 * 86400,
    max_age: Annotated[float, Duration("UNBROKEN_MAX_AGE", "Life of a session, however active.")] = 90 * 86400,
    grace: Annotated[float, Duration("UNBROKEN_GRACE", "How long a just-used refresh token is forgiven.")] = 10,
    issuer: Annotated[
        str, typer.Option(envvar="UNBROKEN_ISSUER", help="`iss` of the tokens. [default: the address]")
    ] = "",
    audience: Annotated[str, typer.Option(envvar="UNBROKEN_AUDIENCE", help="`aud` of the tokens.")] = "unbroken",
    workers: Annotated[int, typer.Option(envvar="UNBROKEN_WORKERS", min=1, max=64, help="Server processes.")] = 1,
    password_grant: Annotated[
        bool,
        typer.Option("--password-grant", envvar="UNBROKEN_PASSWORD_GRANT", help="Open RFC 6749 §4.3 at /auth/token."),
    ] = False,
) -> None:
    """Serve the endpoints. Accounts are made with `unbroken users add`."""
    if workers > 1 and store.startswith("memory:"):
        raise ConfigurationError("several workers cannot share memory: use sqlite:///FILE, or one worker")
    if min(access_ttl, refresh_ttl, max_age) <= 0:
        raise ConfigurationError("--access-ttl, --refresh-ttl and --max-age must be more than nothing")
    open_store(store).close()
    listening = listen(host, port)
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    settings = {
        "store": store,
        "policy": [access_ttl, refresh_ttl, max_age, grace],
        "issuer": issuer or address,
        "audience": audience,
        "password_grant": password_grant,
    }
    os.environ[SETTINGS] = json.dumps(settings)
    print(f"unbroken: {address}/auth on {store}; make a user with: unbroken users add NAME --store {store}", flush=True)
    config = uvicorn.Config(
        "unbroken.cli.serve:app", factory=True, workers=workers, log_level="warning", access_log=False
    )
    if workers == 1:
        uvicorn.Server(config).run(sockets=[listening])
    else:
        Multiprocess(config, sockets=[listening]).run()


def app() -> Starlette:
    """The application that a worker process serves."""
    settings = json.loads(os.environ[SETTINGS])
    store = open_store(settings["store"])
    sessions = Sessions(
        store, policy=Policy(*settings["policy"]), issuer=settings["issuer"], audience=settings["audience"]
    )
    authenticate = Accounts(store).authenticate
    return Starlette(routes=list(routes(sessions, authenticate, password_grant=settings["password_grant"])))


def listen(host: str, port: int) -> socket.socket:
    """A socket on this address. Raises ConfigurationError, in one line, if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sends without delay (TCP_NODELAY) only on sockets that name it.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.set_inheritable(True)
    except OSError as error:
        listening.close()
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}; name another --port") from error
    return listening
