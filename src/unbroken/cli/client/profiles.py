"""Profiles: the sessions that this user's command line knows by name, all in one folder.

    $UNBROKEN_HOME, or $XDG_CONFIG_HOME/unbroken, or ~/.config/unbroken               0700
    ├── NAME.json          where the server is, how it speaks, and a client secret    0600
    └── NAME.tokens.json   the tokens, by ``FileStore``, with its lock files          0600

1. A folder that others may write to is refused: who can replace a profile can have its tokens sent anywhere.
2. A name stays with its server until it is logged out, so that no server is ever sent another one's tokens.
3. A profile is only ever replaced whole. The store's lock files stay behind, for the reason that it gives.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shlex
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from unbroken.client.core.dialect import Dialect, oauth2, unbroken_server
from unbroken.client.session import Session
from unbroken.client.stores.base import TokenStore
from unbroken.client.stores.file import FileStore
from unbroken.errors import SESSION_OVER_MESSAGES, ConfigurationError, InvalidRequest, SessionOver

__all__ = ["Name", "Profile", "checked_name", "find", "names", "remove", "save", "store_of", "using"]

FORMAT = 1
NAME = re.compile(r"(?!\.)(?!.*\.tokens$)[A-Za-z0-9._-]{1,64}", re.IGNORECASE)  # NAME.tokens.json is taken

Name = Annotated[str, typer.Argument(metavar="NAME", help="The session's name, from `unbroken status`.")]


@dataclass(frozen=True, slots=True)
class Profile:
    """All that is needed to speak with the server of one session. ``url``: the server, or with oauth2 the API."""

    name: str
    url: str
    kind: str = "unbroken"
    prefix: str = "/auth"
    token_endpoint: str = ""
    revocation_endpoint: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    origins: tuple[str, ...] = ()
    plain_http: bool = False

    @property
    def server(self) -> tuple[str, ...]:
        """What a name stays with (rule 2)."""
        return (self.kind, self.url, self.prefix, self.token_endpoint)

    def dialect(self) -> Dialect:
        """How the server speaks."""
        if self.kind == "unbroken":
            return unbroken_server(self.url, prefix=self.prefix)
        return oauth2(
            self.token_endpoint,
            client_id=self.client_id,
            client_secret=self.client_secret,
            revocation_endpoint=self.revocation_endpoint,
            origins=(self.url,),
        )

    def session(self, store: TokenStore | None = None) -> Session:
        """A session there, with its tokens in *store*, or in memory."""
        try:
            return Session(self.dialect(), store, origins=self.origins, allow_plain_http=self.plain_http)
        except ConfigurationError as error:  # which names what a program would write
            message = str(error).replace("say allow_plain_http=True", "log in with --allow-plain-http")
            raise ConfigurationError(message) from error

    def login_command(self) -> str:
        """What to type to log in there again."""
        words = ["unbroken", "login", self.url, "--as", self.name]
        more = {"--prefix": self.prefix.removeprefix("/auth"), "--token-endpoint": self.token_endpoint}
        for option, value in (more | {"--client-id": self.client_id}).items():
            words += [option, value] if value else []
        return shlex.join(words)


class LogInAgain(SessionOver):
    """The session of *profile* is over; the message says what to type."""

    def __init__(self, reason: str, profile: Profile) -> None:
        super().__init__(reason)
        why = SESSION_OVER_MESSAGES.get(reason, f"the session has ended ({reason})")
        self.args = (f"{why}: run `{profile.login_command()}` again",)


@contextmanager
def using(name: str) -> Iterator[tuple[Profile, Session]]:
    """The profile and the session called *name*. What is over inside is raised as LogInAgain."""
    profile = find(name)
    session = profile.session(store_of(name))
    try:
        yield profile, session
    except SessionOver as over:
        raise LogInAgain(over.reason, profile) from over


def store_of(name: str) -> FileStore:
    """The store of the session called *name*. Raises ConfigurationError if no tokens can be kept there."""
    folder = _folder()
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"the folder {folder} is read-only: renewed tokens have to be kept there")
    return FileStore(folder / f"{name}.tokens.json")


def names() -> list[str]:
    """The names of all profiles."""
    try:
        found = (file.removesuffix(".json") for file in os.listdir(_folder()) if file.endswith(".json"))
        return sorted(name for name in found if NAME.fullmatch(name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError(f"the profiles in {_folder()} cannot be read: {error.strerror}") from error


def find(name: str) -> Profile:
    """The profile called *name*. Raises InvalidRequest, which lists the names there are."""
    file = _folder() / f"{checked_name(name)}.json"
    try:
        return _profile_of(name, json.loads(file.read_bytes()))
    except FileNotFoundError:
        known = f"known are: {', '.join(names())}" if names() else "make one with `unbroken login URL --as NAME`"
        # The name is not repeated: it may be a token that was put in the wrong place.
        raise InvalidRequest(f"there is no session of that name; {known}") from None
    except OSError as error:
        raise ConfigurationError(f"the profile {file} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigurationError(f"the profile {file} is damaged: delete it, and log in again") from error


def save(profile: Profile) -> None:
    """Puts *profile* into the folder, which is made if it is missing."""
    folder, form = _folder(make=True), asdict(profile)
    del form["name"]
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{profile.name}.", dir=folder)  # mkstemp makes it 0600
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"unbroken": FORMAT, **form}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, folder / f"{profile.name}.json")
    except OSError as error:
        raise ConfigurationError(f"the profile cannot be written to {folder}: {error.strerror}") from error


def remove(name: str) -> None:
    """Forgets the profile and its tokens, also those in files that were damaged and set aside."""
    folder = _folder()
    for file in (
        folder / f"{name}.json",
        folder / f"{name}.tokens.json",
        *folder.glob(f"{name}.tokens.json.damaged-*"),
    ):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)


def checked_name(name: str) -> str:
    """*name*, if it can be one. Raises InvalidRequest."""
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            "a session's name has 1 to 64 letters, digits, '.', '_' and '-', and neither begins with '.' "
            "nor ends with '.tokens'"
        )
    return name


def _folder(*, make: bool = False) -> Path:
    """The folder of the profiles. Raises ConfigurationError if it cannot be made, or trusted (rule 1)."""
    folder = _where()
    try:
        if make:
            with contextlib.suppress(FileExistsError):  # what it is will be seen
                folder.mkdir(mode=0o700, parents=True)
        mode = folder.stat().st_mode
        if not stat.S_ISDIR(mode):
            raise ConfigurationError(f"{folder} is no folder: name one in UNBROKEN_HOME")
        if mode & 0o022:
            raise ConfigurationError(f"others may write to {folder}: run `chmod 700 {shlex.quote(str(folder))}`")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigurationError(f"the folder {folder} cannot be used: {error.strerror}") from error
    return folder


def _where() -> Path:
    home, config = os.environ.get("UNBROKEN_HOME", ""), os.environ.get("XDG_CONFIG_HOME", "")
    if home:
        return Path(_home(), home[2:]) if home.startswith("~/") else Path(home)
    # A relative XDG_CONFIG_HOME is to be ignored (XDG Base Directory Specification).
    return Path(config if os.path.isabs(config) else os.path.join(_home(), ".config")) / "unbroken"


def _home() -> str:
    """The user's own folder. Raises ConfigurationError for a user without one, such as those of some containers."""
    try:
        return os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise ConfigurationError("this user has no home: set HOME, or UNBROKEN_HOME to a folder for sessions") from None


def _profile_of(name: str, form: dict[str, object]) -> Profile:
    if int(str(form.pop("unbroken"))) > FORMAT:
        raise ConfigurationError(f"the profile {name} was written by a newer version of unbroken: upgrade this one")
    origins = form.pop("origins", [])
    if not isinstance(origins, list):
        raise TypeError("not a profile")
    profile = Profile(name=name, origins=tuple(origins), **form)  # type: ignore[arg-type]  # checked below
    texts = (*profile.server, profile.revocation_endpoint, profile.client_id, profile.client_secret, *origins)
    known = profile.kind in ("unbroken", "oauth2") and isinstance(profile.plain_http, bool)
    if not known or not all(isinstance(text, str) for text in texts):
        raise TypeError("not a profile")
    return profile
