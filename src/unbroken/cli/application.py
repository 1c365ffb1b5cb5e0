"""The ASGI application of one process of ``unbroken serve``."""

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

from unbroken.cli.build import build_policy, build_proofs, build_store, build_webhook, endpoint_options
from unbroken.cli.settings import Settings
from unbroken.errors import ConfigurationError, TryLater
from unbroken.server import Accounts, EventLog, Sessions, Webhook
from unbroken.server.core.events import EventListener
from unbroken.starlette import routes

__all__ = ["application", "worker_application"]

_log = logging.getLogger("unbroken")
STORE_CLOSE_SECONDS = 5.0
WORKER_RETRY_SECONDS = 1.0  # the supervisor replaces a worker at once, so a failing worker waits before it exits


def application(settings: Settings, issuer: str) -> Starlette:
    """Return the endpoints over the configured store. Raise ConfigurationError or StoreUnavailable."""
    store, webhook = build_store(settings), build_webhook(settings)
    listeners: list[EventListener] = [EventLog()] if webhook is None else [EventLog(), webhook]
    sessions = Sessions(
        store,
        policy=build_policy(settings),
        issuer=issuer,
        audience=settings.audience,
        on_event=listeners,
        confirm_first_use=settings.confirm_first_use,
        proofs=build_proofs(settings),
    )
    if settings.metrics_port:
        from unbroken.prometheus import observe_sessions  # noqa: PLC0415  # an extra

        observe_sessions(sessions)
    _stop_with_parent()
    accounts = Accounts(sessions)
    endpoints = routes(sessions, accounts.authenticate, **endpoint_options(settings, accounts))
    if settings.demo:
        from unbroken.cli.demo.site import Site  # noqa: PLC0415  # only for the demo

        endpoints += Site(issuer).routes()
    app = Starlette(routes=list(endpoints), lifespan=lambda _: _lifespan(sessions, webhook))
    # Such a redirect would use the client's Host header, and http behind a proxy that speaks https.
    app.router.redirect_slashes = False
    return app


def worker_application(settings: Settings, issuer: str) -> Starlette:
    """Return the application for one of several workers. An error is one log line, and the worker exits.

    ConfigurationError stops the whole server; after TryLater the supervisor starts another worker.
    """
    try:
        return application(settings, issuer)
    except ConfigurationError as error:
        _log.error("%s", error)  # an operator who changes the settings needs no traceback
        raise SystemExit(STARTUP_FAILURE) from None
    except TryLater as error:
        _log.error("this worker cannot start now: %s", error)
        time.sleep(WORKER_RETRY_SECONDS)
        raise SystemExit(1) from None


@asynccontextmanager
async def _lifespan(sessions: Sessions, webhook: Webhook | None) -> AsyncIterator[None]:
    """After the last request: send the events that wait, then close the store."""
    yield
    if webhook:
        await anyio.to_thread.run_sync(webhook.close)
    with anyio.move_on_after(STORE_CLOSE_SECONDS) as scope:
        await sessions.aclose()
    if scope.cancelled_caught:
        _log.warning("the store did not close within %g seconds", STORE_CLOSE_SECONDS)


def _stop_with_parent() -> None:
    """Stop this worker when its supervisor dies: no other process would stop it, and it would keep the port."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="unbroken parent", daemon=True).start()
