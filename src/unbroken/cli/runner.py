"""``unbroken serve``: the endpoints over a store and the embedded accounts, by uvicorn, in one process or several.

1. SIGTERM and SIGINT: nothing new is accepted, requests in flight are finished for ``shutdown_timeout``, the store is
   closed, the exit status is 0. Whoever does not end by then is ended.
2. Of several workers, one that dies is replaced; one that cannot start ends the server, with status 1.
3. The metrics are those of all workers together, at a port of their own.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import tempfile
import time
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from unbroken.cli.application import application, application_of_worker
from unbroken.cli.build import contradictions, open_configured, policy_of
from unbroken.cli.logs import log_config
from unbroken.cli.settings import Settings
from unbroken.errors import ConfigurationError
from unbroken.server import Sessions
from unbroken.server.stores import redact_url

__all__ = ["listen", "run_one", "run_server"]

FAILED = 1
MARGIN = 15.0  # seconds after shutdown_timeout for a worker to send its webhooks, and to close its store


def run_server(settings: Settings) -> int:
    """Serves until it is told to end; the exit status."""
    for wrong in contradictions(settings):
        raise ConfigurationError(wrong)
    _try_store(settings)
    listening = listen(settings.host, settings.port)
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    _start_metrics_server(settings)
    _announce(settings, address)
    build = application if settings.workers == 1 else application_of_worker
    config = uvicorn.Config(
        functools.partial(build, settings, settings.issuer or address),
        factory=True,
        workers=settings.workers,
        log_config=log_config(settings.log_format, settings.log_level, access_log=settings.access_log),
        access_log=settings.access_log,
        server_header=False,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        timeout_graceful_shutdown=max(1, int(settings.shutdown_timeout)),
    )
    return run_one(config, listening) if settings.workers == 1 else _run_workers(config, listening)


def _try_store(settings: Settings) -> None:
    """Raises ConfigurationError, or StoreUnavailable, if the store or its keys cannot be used."""
    sessions = Sessions(open_configured(settings), policy=policy_of(settings))
    try:
        sessions.keyring()
    finally:
        sessions.close()


def _announce(settings: Settings, address: str) -> None:
    where, store = f"{address}{settings.prefix}", redact_url(settings.store)
    if settings.log_format == "json":
        said = json.dumps({"event": "server.listening", "address": where, "store": store, "workers": settings.workers})
    else:
        said = f"unbroken: {where} on {store}; make a user with: unbroken users add NAME --store {store}"
    print(said, flush=True)


def run_one(config: uvicorn.Config, listening: socket.socket) -> int:
    """Serves in this process until it is told to end; the exit status."""
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it is done
        signal.signal(number, lambda *_: None)
    server = uvicorn.Server(config)
    server.run(sockets=[listening])
    return 0 if server.started else FAILED


def _run_workers(config: uvicorn.Config, listening: socket.socket) -> int:
    workers = _Workers(config, sockets=[listening])
    workers.run()
    return 0 if workers.was_told else FAILED


class _Workers(Multiprocess):
    """Workers that are given a bounded time to end."""

    was_told = False

    def handle_term(self) -> None:
        self.was_told = True
        super().handle_term()

    def handle_int(self) -> None:
        self.was_told = True
        super().handle_int()

    def join_all(self) -> None:
        ends = time.monotonic() + (self.config.timeout_graceful_shutdown or 0) + MARGIN
        for worker in self.processes:
            worker.process.join(max(ends - time.monotonic(), 0.1))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _start_metrics_server(settings: Settings) -> None:
    """Opens the metrics' port. The workers write into files of one folder, from which this process adds them up."""
    if not settings.metrics_port:
        return
    folder = tempfile.TemporaryDirectory(prefix="unbroken-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder.name  # before prometheus_client is loaded, here and in the workers
    try:
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415  # an extra
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigurationError("--metrics-port needs prometheus_client: install 'unbroken[prometheus]'") from None
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    try:
        start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        where = f"{settings.metrics_host}:{settings.metrics_port}"
        raise ConfigurationError(f"cannot listen on {where}: {error.strerror}; name another --metrics-port") from error
    _kept.append(folder)  # as long as this process lives


_kept: list[Any] = []


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
