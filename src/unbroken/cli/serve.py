"""``unbroken serve``: the endpoints over a store and the embedded accounts, on uvicorn, in one process or several.

1. SIGTERM and SIGINT: the server accepts no new connection, finishes the requests in flight within
   ``shutdown_timeout``, closes the store, and exits with status 0. A worker that takes longer is killed.
2. A worker that dies is replaced. A worker that cannot start stops the server, with status 1.
3. The metrics of all workers are added up, at a port of their own, with the bounds of the main one.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import tempfile
import threading
import time
from typing import Any

import click
import uvicorn
from uvicorn.supervisors import Multiprocess

from unbroken.cli.application import application, worker_application
from unbroken.cli.build import build_policy, build_store, conflicts
from unbroken.cli.connections import MAX_HEAD_BYTES, http_protocol
from unbroken.cli.logs import log_config
from unbroken.cli.settings import Settings, with_settings
from unbroken.errors import ConfigurationError
from unbroken.server import Sessions
from unbroken.server.stores import redact_url

__all__ = ["listen", "run_server", "serve"]

FAILED_STATUS = 1
SHUTDOWN_MARGIN_SECONDS = 15.0  # after shutdown_timeout, for a worker to send its webhooks and close its store

BOUNDS: dict[str, Any] = {
    "http": http_protocol(),
    "h11_max_incomplete_event_size": MAX_HEAD_BYTES,
    "ws": "none",
    "server_header": False,
}
QUIET: dict[str, Any] = {"log_config": None, "access_log": False}

_metrics_folders: list[Any] = []  # deleted when this process ends


@click.command()
@with_settings()
def serve(settings: Settings) -> int:
    """Serve the endpoints.

    `unbroken users add` makes accounts, `unbroken check` checks the settings.
    """
    for conflict in conflicts(settings):
        raise ConfigurationError(conflict)
    _check_store(settings)
    listener = listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    _start_metrics_server(settings)
    _announce(settings, address)
    config = _uvicorn_config(settings, settings.issuer or address)
    return run_server(config, listener) if settings.workers == 1 else _run_workers(config, listener)


def _check_store(settings: Settings) -> None:
    """Raise ConfigurationError or StoreUnavailable if the store or its keys cannot be used."""
    sessions = Sessions(build_store(settings), policy=build_policy(settings))
    try:
        sessions.keyring()
    finally:
        sessions.close()


def _announce(settings: Settings, address: str) -> None:
    url, store = f"{address}{settings.prefix}", redact_url(settings.store)
    if settings.log_format == "json":
        line = json.dumps({"event": "server.listening", "address": url, "store": store, "workers": settings.workers})
    else:
        line = f"unbroken: {url} on {store}; make a user with: unbroken users add NAME --store {store}"
    print(line, flush=True)


# ---- processes (rules 1 and 2) ---------------------------------------------------------------------------------------


def _uvicorn_config(settings: Settings, issuer: str) -> uvicorn.Config:
    build = application if settings.workers == 1 else worker_application
    return uvicorn.Config(
        functools.partial(build, settings, issuer),
        factory=True,
        workers=settings.workers,
        **BOUNDS,
        log_config=log_config(settings.log_format, settings.log_level, access_log=settings.access_log),
        access_log=settings.access_log,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=list(settings.forwarded_allow_ips),
        timeout_graceful_shutdown=max(1, int(settings.shutdown_timeout)),
    )


def run_server(config: uvicorn.Config, listener: socket.socket) -> int:
    """Serve in this process until a signal stops it; return the exit status."""
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it has stopped
        signal.signal(number, lambda *_: None)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else FAILED_STATUS


def _run_workers(config: uvicorn.Config, listener: socket.socket) -> int:
    workers = _Workers(config, sockets=[listener])
    workers.run()
    return 0 if workers.stopped_by_signal else FAILED_STATUS


class _Workers(Multiprocess):
    """Worker processes that have a limited time to stop."""

    stopped_by_signal = False

    def handle_term(self) -> None:
        self.stopped_by_signal = True
        super().handle_term()

    def handle_int(self) -> None:
        self.stopped_by_signal = True
        super().handle_int()

    def join_all(self) -> None:
        deadline = time.monotonic() + (self.config.timeout_graceful_shutdown or 0) + SHUTDOWN_MARGIN_SECONDS
        for worker in self.processes:
            worker.process.join(max(deadline - time.monotonic(), 0.1))
            if worker.process.is_alive():
                worker.process.kill()  # rule 1
                worker.process.join()


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """Return a socket bound to this address. Raise ConfigurationError if that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio switches TCP_NODELAY on only for sockets that name it.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.set_inheritable(True)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}; name another {option}") from error
    return listener


# ---- metrics (rule 3) ------------------------------------------------------------------------------------------------


def _start_metrics_server(settings: Settings) -> None:
    """Open the port of the metrics. The workers write to files in one folder, which this process reads and adds up."""
    if not settings.metrics_port:
        return
    folder = tempfile.TemporaryDirectory(prefix="unbroken-metrics-")
    # prometheus_client reads the variable when it is imported, here and in the workers.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder.name
    try:
        from prometheus_client import CollectorRegistry, make_asgi_app  # noqa: PLC0415  # an extra
        from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigurationError("--metrics-port needs prometheus_client: install 'unbroken[prometheus]'") from None
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    listener = listen(settings.metrics_host, settings.metrics_port, "--metrics-port")
    server = uvicorn.Server(uvicorn.Config(make_asgi_app(registry), lifespan="off", **BOUNDS, **QUIET))
    threading.Thread(target=server.run, args=([listener],), name="unbroken metrics", daemon=True).start()
    _metrics_folders.append(folder)
