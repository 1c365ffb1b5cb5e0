"""The environment of the demo: server, network, token file and processes, and the faults that can be caused."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from unbroken import FileStore, Session
from unbroken._concurrency import run_sync
from unbroken.cli.demo.workers import Observations
from unbroken.errors import InvalidGrant, InvalidToken, TryLater
from unbroken.server import Accounts, Caller, Policy, Sessions, SqliteSessionStore
from unbroken.server.core.rotation import SessionRow
from unbroken.testing.network import Network

__all__ = ["DemoEnvironment", "Thief", "demo_environment", "stop_second_process"]

RESTART_SECONDS = 0.3  # between kill -9 and the next start
START_ATTEMPTS, START_PAUSE = 400, 0.025
THIEF_ADDRESS = Caller("203.0.113.66")


class DemoEnvironment:
    """All that runs, in one temporary folder."""

    def __init__(self, folder: Path, access_ttl: float) -> None:
        self.database, self.token_file = str(folder / "server.db"), str(folder / "tokens.json")
        self._access_ttl = access_ttl
        self._port = _free_port()
        self.network = Network(self._port)
        self.network.start()
        self.url = f"http://127.0.0.1:{self.network.port}"
        store = SqliteSessionStore(self.database)
        self.password = secrets.token_urlsafe(9)
        Accounts(store).add("ada", self.password)
        self.sessions = Sessions(store, policy=Policy(access_ttl=access_ttl), issuer=self.url)
        self.server = self._start_server()
        self.kills = 0

    def log_in(self) -> Session:
        """Return a session that is logged in, on the token file."""
        session = Session(self.url, FileStore(self.token_file), refresh_timeout=5.0)
        session.login("ada", self.password, label="demo")
        return session

    def start_second_process(self, tasks: int) -> subprocess.Popen[str]:
        """Start a second process on the token file."""
        command = [sys.executable, "-m", "unbroken.cli.demo.second_process", self.token_file, self.url, str(tasks)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    # ---- faults ----------------------------------------------------------------------------------------------------

    def kill_server(self) -> None:
        """Kill the server with -9, and start it again."""
        self.server.kill()
        self.server.wait()
        self.kills += 1
        time.sleep(RESTART_SECONDS)
        self.server = self._start_server()

    def invalidate_access_tokens(self) -> None:
        """Make all access tokens invalid before they expire: retire the key that signed them."""
        old = self.sessions.keyring().signer(time.time())
        self.sessions.rotate_keys(publish_ahead=0.0)
        self.sessions.retire_key(old.kid)

    def lose_response(self) -> None:
        """Lose the response to the next refresh."""
        self.network.lose += 1

    def steal(self) -> Thief:
        """Return a thief who has copied the token file."""
        record = json.loads(Path(self.token_file).read_text())
        return Thief(self.sessions, record["tokens"]["refresh_token"], record["idempotency_key"])

    # ---- what the server knows ---------------------------------------------------------------------------------------

    def rotations(self) -> int:
        """Return how many times the refresh token was rotated."""
        return max(row.generation for row in self._rows())

    def reuse_detections(self) -> int:
        """Return how many sessions were revoked because of reuse."""
        return sum(row.revoked_why == "reuse" for row in self._rows())

    def _rows(self) -> list[SessionRow]:
        return run_sync(self.sessions.store.sessions())

    # ---- start and stop ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop everything."""
        self.server.kill()
        self.server.wait()
        self.network.stop()
        self.sessions.close()

    def _start_server(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "unbroken.cli.demo.server", self.database, str(self._port)]
        server = subprocess.Popen([*command, str(self._access_ttl), self.url])
        for _ in range(START_ATTEMPTS):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 0.2):
                return server
            time.sleep(START_PAUSE)
        raise TryLater(f"the demo's server did not start within {START_ATTEMPTS * START_PAUSE:g} seconds")


class Thief:
    """Uses a stolen refresh token, and then the tokens that it gets for it."""

    def __init__(self, sessions: Sessions, refresh_token: str, idempotency_key: str | None) -> None:
        self._sessions, self._refresh_token, self._idempotency_key = sessions, refresh_token, idempotency_key
        self._access_token = ""
        self._is_refused = False

    def refresh(self) -> None:
        """Refresh, and remember whether that was refused."""
        try:
            response = self._sessions.refresh(
                self._refresh_token, idempotency_key=self._idempotency_key, caller=THIEF_ADDRESS
            )
        except InvalidGrant:
            self._is_refused = True
            return
        self._refresh_token, self._access_token = response.refresh_token or "", response.access_token
        self._idempotency_key = None

    def is_locked_out(self) -> bool:
        """Return whether neither token of the thief works any more."""
        try:
            self._sessions.verify(self._access_token)
        except InvalidToken:
            return self._is_refused
        return False


def stop_second_process(process: subprocess.Popen[str]) -> Observations:
    """Stop the second process, and return its observations."""
    output, _ = process.communicate(timeout=30)
    if process.returncode != 0:
        return Observations(failures=1, first_failures=["the second process failed"])
    return Observations(**json.loads(output))


@contextlib.contextmanager
def demo_environment(access_ttl: float) -> Iterator[DemoEnvironment]:
    """Yield an environment, and remove it at the end."""
    with TemporaryDirectory(prefix="unbroken-demo-") as folder:
        environment = DemoEnvironment(Path(folder), access_ttl)
        try:
            yield environment
        finally:
            environment.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
