"""The stage of the demo: server, network, token file, the processes, and what can be done to them."""

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
from unbroken._sync import run_sync
from unbroken.cli.demo.workers import Seen
from unbroken.errors import InvalidGrant, InvalidToken, TryLater
from unbroken.server import Accounts, Caller, Policy, Sessions, SqliteSessionStore
from unbroken.server.core.rotation import SessionRow
from unbroken.testing.network import Network

__all__ = ["Stage", "stage"]


class Stage:
    """Everything that runs, in one temporary folder."""

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
        """A session on the token file, logged in."""
        session = Session(self.url, FileStore(self.token_file), refresh_timeout=5.0)
        session.login("ada", self.password, label="demo")
        return session

    def start_sibling(self, tasks: int) -> subprocess.Popen[str]:
        """A second process on the token file."""
        command = [sys.executable, "-m", "unbroken.cli.demo.sibling", self.token_file, self.url, str(tasks)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def kill_server(self) -> None:
        """kill -9, and a new start shortly after."""
        self.server.kill()
        self.server.wait()
        self.kills += 1
        time.sleep(0.3)
        self.server = self._start_server()

    def expire_early(self) -> None:
        """All access tokens die before their time: the key that signed them is retired."""
        old = self.sessions.keyring().signer(time.time())
        self.sessions.rotate_keys(publish_ahead=0.0)
        self.sessions.retire_key(old.kid)

    def lose_an_answer(self) -> None:
        """The next answer to a refresh is lost on its way."""
        self.network.lose += 1

    def generation(self) -> int:
        """How many times the refresh token has been exchanged."""
        return max(row.generation for row in self._rows())

    def alarms(self) -> int:
        """How many sessions were ended because of reuse."""
        return sum(row.revoked_why == "reuse" for row in self._rows())

    def steal(self) -> Thief:
        """A thief who has just copied the token file."""
        form = json.loads(Path(self.token_file).read_text())
        return Thief(self.sessions, form["tokens"]["refresh_token"], form["idempotency_key"])

    def close(self) -> None:
        self.server.kill()
        self.server.wait()
        self.network.stop()
        self.sessions.close()

    def _rows(self) -> list[SessionRow]:
        return run_sync(self.sessions.store.sessions())

    def _start_server(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "unbroken.cli.demo.server", self.database, str(self._port)]
        server = subprocess.Popen([*command, str(self._access_ttl), self.url])
        for _ in range(400):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 0.2):
                return server
            time.sleep(0.025)
        raise TryLater("the demo's server did not start within ten seconds")


ADDRESS = Caller("203.0.113.66")


class Thief:
    """Goes on with a stolen refresh token, as if it were his."""

    def __init__(self, sessions: Sessions, refresh_token: str, attempt: str | None) -> None:
        self._sessions, self._refresh_token, self._attempt = sessions, refresh_token, attempt
        self._access_token = ""
        self.caught = False

    def refresh(self) -> None:
        """Exchanges what he has; takes note if he is refused."""
        try:
            granted = self._sessions.refresh(self._refresh_token, idempotency_key=self._attempt, caller=ADDRESS)
        except InvalidGrant:
            self.caught = True
            return
        self._refresh_token, self._access_token = granted.refresh_token or "", granted.access_token
        self._attempt = None

    def shut_out(self) -> bool:
        """Whether neither of his tokens works any more."""
        try:
            self._sessions.verify(self._access_token)
        except InvalidToken:
            return self.caught
        return False


def ended(process: subprocess.Popen[str]) -> Seen:
    """What a sibling saw, after it was told to stop."""
    out, _ = process.communicate(timeout=30)
    return Seen(**json.loads(out)) if process.returncode == 0 else Seen(failures=1, what=["the second process died"])


@contextlib.contextmanager
def stage(access_ttl: float) -> Iterator[Stage]:
    """A stage that is cleared away at the end, whatever happens."""
    with TemporaryDirectory(prefix="unbroken-demo-") as folder:
        built = Stage(Path(folder), access_ttl)
        try:
            yield built
        finally:
            built.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
