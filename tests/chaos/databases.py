"""PostgreSQL and Redis that a test may kill with all their children, replicate, and restore from an older state."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import redis

from tests.support.services import Service, _postgres_programs, _unprivileged, free_port, unavailable
from tests.support.waiting import until

__all__ = ["Postgres", "Redis", "postgres", "redis_of_its_own", "replica_of"]


class Killed(Service):
    """A server that ends by ``SIGKILL``, and so do its children."""

    def kill(self) -> None:
        """kill -9 of all its processes; returns when none of them is left."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._process.kill()
        self._process.wait(10)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        until(lambda: not any(_runs(child) for child in children), "the end of all children of a server")


class Postgres(Killed):
    """A PostgreSQL, and the folder it lives in."""

    def __init__(self, folder: str, owner: list[str]) -> None:
        self.owner, self.port = owner, free_port()
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
        command = [*owner, f"{_postgres_programs()}/postgres", "-D", f"{folder}/data", "-p", str(self.port), *settings]
        super().__init__(f"postgresql://unbroken@127.0.0.1:{self.port}/postgres", command, self.port)
        self.folder = folder

    def start(self) -> None:
        super().start()
        until(self._answers, "a response from PostgreSQL")

    def ask(self, statement: str) -> Any:
        """The first value of the first row that *statement* gives, if it gives any."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def _answers(self) -> bool:
        try:
            return self.ask("SELECT 1") == 1
        except psycopg.OperationalError:
            return False


class Redis(Killed):
    """A Redis, and the folder it lives in. With *appends* it writes a log, flushed once a second, as in production."""

    def __init__(self, folder: str) -> None:
        self.port = free_port()
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            unavailable("Redis", "apt-get install redis-server")
        command = [program or "", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        command += ["--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"]
        super().__init__(f"redis://127.0.0.1:{self.port}/0", command, self.port)
        self.folder = folder
        self._plain = command

    def start(self, *, appends: bool = True) -> None:
        self._command = [*self._plain, "--appendonly", "yes" if appends else "no"]
        super().start()
        until(self._answers, "a response from Redis")

    def writes_out(self) -> None:
        """Returns when its log file has all that it has said yes to: a write waits while the disk is busy."""
        with redis.Redis(port=self.port) as client:
            until(lambda: client.info("persistence")["aof_buffer_length"] == 0, "a log that is written")

    def save(self) -> None:
        """Writes a snapshot (RDB) of all that there is."""
        with redis.Redis(port=self.port) as client:
            client.save()

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


@contextmanager
def redis_of_its_own() -> Iterator[Redis]:
    with tempfile.TemporaryDirectory(prefix="unbroken-chaos-") as folder:
        server = Redis(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGKILL)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A new PostgreSQL, ready to be replicated."""
    with tempfile.TemporaryDirectory(prefix="unbroken-chaos-") as folder:
        owner = _unprivileged(folder)
        made = [*owner, f"{_postgres_programs()}/initdb", "-D", f"{folder}/data", "-U", "unbroken", "-A", "trust"]
        subprocess.run([*made, "-E", "UTF8", "--no-sync"], check=True, stdout=subprocess.DEVNULL, timeout=60)
        with _running(Postgres(folder, owner)) as server:
            yield server


@contextmanager
def replica_of(primary: Postgres) -> Iterator[Postgres]:
    """A replica that streams from *primary*."""
    with tempfile.TemporaryDirectory(prefix="unbroken-chaos-") as folder:
        owner = _unprivileged(folder)
        copied = [*owner, f"{_postgres_programs()}/pg_basebackup", "-d", primary.url, "-D", f"{folder}/data"]
        subprocess.run([*copied, "-R", "-c", "fast", "--no-sync"], check=True, timeout=60)
        with _running(Postgres(folder, owner)) as server:
            until(lambda: server.ask("SELECT status FROM pg_stat_wal_receiver") == "streaming", "a stream")
            yield server


@contextmanager
def _running(server: Postgres) -> Iterator[Postgres]:
    server.start()
    try:
        yield server
    finally:
        server.stop(signal.SIGINT)


def _runs(pid: str) -> bool:
    """Whether there is such a process; one that only waits to be noticed has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
