"""A server that speaks HTTP/2 with TLS, by a certificate of its own: over nothing less does Chromium send streams."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypercorn.asyncio import serve
from hypercorn.config import Config

__all__ = ["certificate", "running_http2"]

HOST = "127.0.0.1"


def certificate(folder: Path) -> tuple[Path, Path]:
    """Files of a self-signed certificate for this machine, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(pem))
    files[1].write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    return files


@contextmanager
def running_http2(app: Any, folder: Path) -> Iterator[str]:
    """*app* by a real hypercorn in a thread; its URL. *folder* is for the certificate."""
    listening = socket.create_server((HOST, 0))  # from now on browsers can connect, and wait for hypercorn
    url = f"https://{HOST}:{listening.getsockname()[1]}"
    config = Config()
    certfile, keyfile = certificate(folder)
    config.certfile, config.keyfile = str(certfile), str(keyfile)
    config.bind = [f"fd://{listening.detach()}"]
    config.loglevel, config.graceful_timeout = "CRITICAL", 1.0
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(serve(_quiet(app), config, shutdown_trigger=ended.wait)), daemon=True
    )
    thread.start()
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.close()


def _quiet(app: Any) -> Any:
    """*app*, without the lifespan events of the server."""

    async def quiet(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)

    return quiet
