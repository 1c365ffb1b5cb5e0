"""``unbroken token NAME --watch``: the access token in a file, or behind a socket, kept good until a signal ends it.

1. The file has mode 0600 and is replaced as a whole, so that a reader gets one token, never a part. A file or a folder
   of another user's, and a link, are refused (``_private_files.py``), and so is a file with other content than a token.
2. The token is refreshed before it expires, and replaced at once when another program has refreshed the session.
3. At the end the file is removed: a token that is no longer kept good would be a wrong one later. After a kill -9 it
   stays, and the next watcher replaces it.
4. While no refresh is possible, the file keeps the last token, and a line on standard error says why.
5. A signal removes the file at once. The process then waits for a refresh under way (``cli/ending.py``).
6. A file cannot sign: for a session that is bound to a key there is only the socket, whose broker gives proofs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Self

from unbroken._http import is_safe_in_header
from unbroken._private_files import read_private, replace_private, require_private_folder
from unbroken.cli.client.broker import serve_sessions
from unbroken.cli.client.profiles import refuse_bound, warn_if_bound
from unbroken.cli.terminal import say
from unbroken.client.profile_session import ProfileSession
from unbroken.client.profiles import find_profile
from unbroken.errors import ConfigurationError, TryLater

__all__ = ["watch"]

POLL_SECONDS = 0.5
SOCKET_SUFFIX, SOCKET_SCHEME = ".sock", "unix:"
WHAT = "the file of the token"


def watch(name: str, target: str) -> None:
    """Keep the access token of the session *name* in the file, or behind the socket, *target*."""
    if target.startswith(SOCKET_SCHEME) or target.endswith(SOCKET_SUFFIX):
        warn_if_bound(find_profile(name))
        serve_sessions(Path(target.removeprefix(SOCKET_SCHEME)), (name,))
    else:
        refuse_bound(find_profile(name), "a file with a token")  # rule 6
        _watch_file(ProfileSession.of_name(name, {}), Path(target))


def _watch_file(session: ProfileSession, target: Path) -> None:
    with TokenFile(target) as file:
        watcher = _Watcher(session, file)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: watcher.ended.set())
        threading.Thread(target=watcher.run, name="unbroken-watch", daemon=True).start()
        watcher.ended.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)  # the next one ends what is left
    if watcher.error is not None:
        raise watcher.error


class _Watcher:
    """Keeps *file* good in a thread, so that a signal need not wait for the server (rule 5)."""

    def __init__(self, session: ProfileSession, file: TokenFile) -> None:
        self._session, self._file = session, file
        self.ended = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Keep the file good until *ended* is set; set it, and *error*, if that is no longer possible."""
        try:
            self._file.write(self._session.fresh_tokens().tokens.access_token)
            say(f"the token is in {self._file.path}")
            sys.stdout.flush()
            self._keep()
        except BaseException as error:  # noqa: BLE001  # the main thread raises it
            self.error = error
        finally:
            self.ended.set()

    def _keep(self) -> None:
        complaint = ""
        while not self.ended.wait(POLL_SECONDS):
            try:
                self._file.write(self._session.fresh_tokens().tokens.access_token)  # rule 2
                complaint = ""
            except TryLater as error:  # rule 4
                if str(error) != complaint:
                    complaint = str(error)
                    print(f"unbroken: {complaint}", file=sys.stderr)


class TokenFile:
    """The file at *path*, removed at the end of the ``with`` block (rules 1 and 3). Raise ConfigurationError."""

    def __init__(self, path: Path) -> None:
        path = path.expanduser().absolute()
        try:
            folder = Path(os.path.realpath(path.parent, strict=True))
        except OSError as error:
            raise ConfigurationError(f"the folder {path.parent} cannot be used: {error.strerror}") from error
        self.path = folder / path.name
        self._lock, self._is_removed = threading.Lock(), False
        require_private_folder(folder)
        self._content()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._is_removed = True
            os.unlink(self.path)

    def write(self, token: str) -> None:
        """Write *token* if it is not there, and the file was not removed."""
        data = token.encode() + b"\n"
        with self._lock:
            if self._is_removed or self._content() == data:
                return
            try:
                replace_private(self.path, data)
            except OSError as error:
                raise ConfigurationError(f"{WHAT} {self.path} cannot be written: {error.strerror}") from error

    def _content(self) -> bytes:
        """Return what is there; nothing without a file. Raise ConfigurationError if it is not ours to replace."""
        try:
            found = read_private(self.path, WHAT)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise ConfigurationError(f"{WHAT} {self.path} cannot be read: {error.strerror}") from error
        if found.count(b"\n") > 1 or not is_safe_in_header(found.decode("latin-1").removesuffix("\n")):
            raise ConfigurationError(f"{self.path} holds something else than a token: name another file")
        return found
