"""The application that one process of ``unbroken serve`` runs."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE

from unbroken.cli.build import endpoint_settings, open_configured, policy_of, webhook_of
from unbroken.cli.settings import Settings
from unbroken.errors import ConfigurationError, TryLater
from unbroken.server import Accounts, EventLog, Sessions, Webhook
from unbroken.server.core.events import EventListener
from unbroken.starlette import routes

__all__ = ["application", "application_of_worker"]

_log = logging.getLogger("unbroken")
CLOSING = 5.0  # seconds for the store to be let go of
PAUSE = 1.0  # seconds before the supervisor hears that a worker could not start, and starts another


def application(settings: Settings, issuer: str) -> Starlette:
    """The endpoints over the configured store. Raises ConfigurationError."""
    store, webhook = open_configured(settings), webhook_of(settings)
    listeners: list[EventListener] = [EventLog()] if webhook is None else [EventLog(), webhook]
    sessions = Sessions(
        store, policy=policy_of(settings), issuer=issuer, audience=settings.audience, on_event=listeners
    )
    if settings.metrics_port:
        from unbroken.prometheus import observe_sessions  # noqa: PLC0415  # an extra

        observe_sessions(sessions)
    _end_with_parent()
    authenticate = Accounts(store).authenticate
    endpoints = routes(sessions, authenticate, **endpoint_settings(settings))
    if settings.demo:
        from unbroken.cli.demo.site import Site  # noqa: PLC0415  # nobody else pays for it

        endpoints += Site(issuer).routes()
    app = Starlette(routes=list(endpoints), lifespan=lambda _: _lifespan(sessions, webhook))
    app.router.redirect_slashes = False  # to where the client's Host says, and without https behind some proxies
    return app


def application_of_worker(settings: Settings, issuer: str) -> Starlette:
    """The same for one of several workers. What cannot be mended by another try ends the whole server, in one line."""
    try:
        return application(settings, issuer)
    except ConfigurationError as error:
        _log.error("%s", error)  # whoever has to change the settings needs no traceback
        raise SystemExit(STARTUP_FAILURE) from None
    except TryLater as error:
        _log.error("this worker cannot start now: %s", error)
        time.sleep(PAUSE)
        raise SystemExit(1) from None


@asynccontextmanager
async def _lifespan(sessions: Sessions, webhook: Webhook | None) -> AsyncIterator[None]:
    """After the last request: what waits is sent, and the store is let go of."""
    yield
    if webhook:
        await anyio.to_thread.run_sync(webhook.close)
    with anyio.move_on_after(CLOSING) as scope:
        await sessions.aclose()
    if scope.cancelled_caught:
        _log.warning("the store did not close in time")


def _end_with_parent() -> None:
    """A worker whose supervisor was killed stops too: nobody would replace it, and it would hold the port."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="unbroken parent", daemon=True).start()
