"""Real PostgreSQL and Redis processes for tests: on free ports, in a temporary folder, ended with the run.

1. Nothing of the system's own services is touched: each server is started here, and stopped by its process id.
2. Where a program is missing, a test fails in CI and is skipped elsewhere; the reason says how to get it.
3. A server ends with the process that started it, also if that is killed.
"""

from __future__ import annotations

import contextlib
import getpass
import glob
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

__all__ = ["Service", "free_port", "new_database", "new_store", "postgres_server", "redis_server", "unavailable"]


class Service:
    """A running server: its URL, and a way to kill it and to bring it back."""

    def __init__(self, url: str, command: list[str], ready: int, environment: dict[str, str] | None = None) -> None:
        self.url, self._command, self._port = url, command, ready
        self.folder = ""  # where its Unix socket is
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and returns when it can be connected to."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self._environment
        )
        ends = time.monotonic() + 20
        while time.monotonic() < ends and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 0.2):
                return
            time.sleep(0.02)
        raise RuntimeError(f"{self._command[0]} did not start (exit status {self._process.poll()})")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it: in order, or by ``SIGKILL``."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)


def free_port() -> int:
    """A port on loopback that nobody listens on, and that no outgoing connection and no other caller is given."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(max(lowest - 12_000, 1024), lowest)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def unavailable(what: str, how: str) -> None:
    """Ends the test: a failure in CI, a skip with a reason elsewhere."""
    message = f"{what} is not installed: {how}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@contextmanager
def redis_server() -> Iterator[Service]:
    """A Redis of its own, that writes its log once a second as in production."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        unavailable("Redis", "apt-get install redis-server")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="unbroken-redis-") as folder:
        command = [*ends_with_us(), program or "", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        command += ["--unixsocket", f"{folder}/redis.sock"]
        service = Service(f"redis://127.0.0.1:{port}/0", command, port)
        service.folder = folder
        service.start()
        try:
            yield service
        finally:
            service.stop()


@contextmanager
def postgres_server() -> Iterator[Service]:
    """A PostgreSQL of its own, with one database and no password."""
    programs = _postgres_programs()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="unbroken-postgres-") as folder:
        owner = _unprivileged(folder)
        data = str(Path(folder) / "data")
        made = [*owner, f"{programs}/initdb", "-D", data, "-U", "unbroken", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, timeout=60)
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
        command = [*owner, f"{programs}/postgres", "-D", data, "-p", str(port), *settings]
        service = Service(f"postgresql://unbroken@127.0.0.1:{port}/postgres", command, port)
        service.folder = folder
        service.start()
        _until_it_answers(f"{programs}/pg_isready", port)
        try:
            yield service
        finally:
            service.stop(signal.SIGINT)


@contextmanager
def new_database(service: Service) -> Iterator[str]:
    """The URL of an empty database, which is dropped with all its connections."""
    name = f"of_a_test_{secrets.token_hex(4)}"
    with psycopg.connect(service.url, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield service.url.rpartition("/")[0] + f"/{name}"
    finally:
        with psycopg.connect(service.url, autocommit=True) as db:
            db.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def new_store(service: Service) -> str:
    """The URL of an empty store for one test: a schema of its own in PostgreSQL, a prefix of its own in Redis.

    Nothing is emptied for it: the thread that listens for a server of an earlier test may still run, and would make
    keys in a store that it finds empty.
    """
    name = f"of_a_test_{secrets.token_hex(4)}"
    if service.url.startswith("redis"):
        return f"{service.url}?prefix={name}"
    with psycopg.connect(service.url, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {name}".encode())
    return f"{service.url}?options=-csearch_path%3D{name}"


def _postgres_programs() -> str:
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"), key=lambda path: int(path.split("/")[4]))
    if found:
        return os.path.dirname(found[-1])
    program = shutil.which("initdb")
    if program is None:
        unavailable("PostgreSQL", "apt-get install postgresql")
    return os.path.dirname(program or "")


def _unprivileged(folder: str) -> list[str]:
    """PostgreSQL refuses to run as root: then it runs as its own user, to whom *folder* is given."""
    if os.geteuid() != 0:
        return ends_with_us()
    user = next((name for name in ("postgres", "nobody") if _known(name)), getpass.getuser())
    entry = pwd.getpwnam(user)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return [*ends_with_us()[:-1], f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--"]


def ends_with_us() -> list[str]:
    """What makes a command end when this process is killed (rule 3), where the system can do that."""
    return ["setpriv", "--pdeathsig", "INT", "--"] if shutil.which("setpriv") else []


def _known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _until_it_answers(program: str, port: int) -> None:
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        if subprocess.run([program, "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise RuntimeError("PostgreSQL does not respond")
