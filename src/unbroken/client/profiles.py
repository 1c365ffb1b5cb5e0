"""Profiles: the sessions that this user has by name, in one folder, for the command line and for programs.

    $UNBROKEN_HOME, or $XDG_CONFIG_HOME/unbroken, or ~/.config/unbroken               0700
    ├── NAME.json          the server, how to speak with it, and a client secret      0600
    ├── NAME.tokens.json   the tokens, in a ``FileStore``, with its lock files        0600
    ├── NAME.key           the key that the session is bound to, if it is             0600
    └── locks/             the lock files of tokens that are in the keyring           0700

1. A folder or a profile that other users may write to, or that is another user's, is refused (``_private_files.py``):
   a profile decides where its tokens are sent.
2. A name belongs to its server until it is logged out, so that no server gets another server's tokens.
3. A profile is replaced as a whole file. The lock files of the store are kept; ``FileStore`` says why.
4. The profile says where its tokens are, and nothing else does: all programs use one store, and one lock.
5. A program that runs on while the name goes to another server does not see the tokens of that one (``ProfileStore``).
6. A file that is neither a profile nor a token file is not ours, whatever its name: it is neither replaced nor deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import stat
import tempfile
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from unbroken._private_files import file_lock, read_beginning, read_private, require_private_folder
from unbroken.client.core.backends import oauth2, unbroken_server
from unbroken.client.core.dialect import Dialect
from unbroken.client.core.login_endpoints import LOOPBACK_REDIRECT, LoginEndpoints
from unbroken.client.core.proof import PROOF_ALGORITHMS
from unbroken.client.core.token_store import Lease, StoredSession, TokenStore
from unbroken.client.stores.codec import key_from_environment, was_record
from unbroken.client.stores.file import FileStore
from unbroken.errors import SESSION_OVER_MESSAGES, ConfigurationError, InvalidRequest, SessionOver, UnbrokenError

__all__ = [
    "DEFAULT_PREFIX",
    "KEYRING_SERVICE",
    "KEY_PLACES",
    "STORES",
    "LogInAgain",
    "Profile",
    "ProfileStore",
    "delete_profile",
    "delete_proof_key",
    "find_profile",
    "key_file",
    "key_name",
    "login_lock",
    "prepare_folder",
    "profile_names",
    "save_profile",
    "token_store",
    "valid_name",
]

PROFILE_FORMAT = 1
DEFAULT_PREFIX = "/auth"
STORES = ("file", "encrypted", "keyring")
KEY_PLACES = ("file", "keyring")  # of the key that a session is bound to
KEY_SUFFIX, KEY_BEGINNING = ".key", b"-----BEGIN"
KEYRING_SERVICE = "unbroken"
BEGINNING_BYTES = 64  # enough to tell our files from any other
NAME = re.compile(r"(?!\.)(?!.*\.tokens$)[A-Za-z0-9._-]{1,64}", re.IGNORECASE)  # NAME.tokens.json is taken


@dataclass(frozen=True, slots=True)
class Profile:
    """How to speak with the server of one session. *url*: the server, or the API of a server that speaks OAuth 2.0.

    *user*: who logged in; empty if unknown. *pasted*: the login was a refresh token, not a password. *store*: where the
    tokens are, one of ``STORES``. *client_auth*, *resource*: as in ``unbroken.oauth2``. *issuer*: the name of the
    authorization server, where it is known. *program*: what logs in, if the command line cannot. *login_by*: how the
    user logs in at a server of OAuth 2.0, if neither by password nor by refresh token: ``web`` or ``device``.
    *returns_issuer*, *redirect_uri*: as in ``LoginEndpoints``. *dpop*: where the key is that the session is bound to,
    one of ``KEY_PLACES``; empty if it is bound to none. *dpop_alg*: the name under which it signs, if it is not the
    usual one.
    """

    name: str
    url: str
    kind: str = "unbroken"
    prefix: str = DEFAULT_PREFIX
    token_endpoint: str = ""
    revocation_endpoint: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    origins: tuple[str, ...] = ()
    plain_http: bool = False
    user: str = ""
    pasted: bool = False
    store: str = "file"
    client_auth: Literal["basic", "post"] = "basic"
    resource: str = ""
    issuer: str = ""
    program: str = ""
    login_by: str = ""
    authorization_endpoint: str = ""
    device_authorization_endpoint: str = ""
    returns_issuer: bool = False
    redirect_uri: str = LOOPBACK_REDIRECT
    dpop: str = ""
    dpop_alg: str = ""

    @property
    def server(self) -> tuple[str, ...]:
        """What identifies the server (rule 2)."""
        return (self.kind, self.url, self.prefix, self.token_endpoint)

    def dialect(self) -> Dialect:
        """Return the dialect of the server."""
        if self.kind == "unbroken":
            return unbroken_server(self.url, prefix=self.prefix)
        dialect = oauth2(
            self.token_endpoint,
            client_id=self.client_id,
            client_secret=self.client_secret,
            client_auth=self.client_auth,
            resource=self.resource,
            revocation_endpoint=self.revocation_endpoint,
            origins=(self.url,),
        )
        return replace(dialect, login_endpoints=self.login_endpoints())

    def login_endpoints(self) -> LoginEndpoints | None:
        """Return where a person logs in; None if this is not known."""
        if not (self.authorization_endpoint or self.device_authorization_endpoint):
            return None
        return LoginEndpoints(
            self.client_id,
            self.authorization_endpoint,
            self.device_authorization_endpoint,
            self.issuer,
            self.returns_issuer,
            redirect_uri=self.redirect_uri,
        )

    def login_command(self) -> str:
        """Return the command that logs in again."""
        values = {
            "--as": self.name,
            "--user": "" if self.pasted or self.login_by else self.user,
            "--issuer": self.issuer if self.login_by else "",
            "--prefix": "" if self.prefix == DEFAULT_PREFIX else self.prefix,
            "--token-endpoint": "" if self.login_by else self.token_endpoint,
            "--revocation-endpoint": "" if self.login_by else self.revocation_endpoint,
            "--client-id": self.client_id,
            "--redirect-uri": "" if self.redirect_uri == LOOPBACK_REDIRECT else self.redirect_uri,
            "--keep": "" if self.store == "file" else self.store,
            "--dpop-key": "" if self.dpop == "file" else self.dpop,
            "--dpop-alg": self.dpop_alg,
        }
        flags = {
            "--client-secret-stdin": bool(self.client_secret),
            "--paste": self.pasted,
            "--web": self.login_by == "web",
            "--device": self.login_by == "device",
            "--dpop": bool(self.dpop),
            "--allow-plain-http": self.plain_http,
        }
        words = ["unbroken", "login", self.url]
        words += [word for option, value in values.items() if value for word in (option, value)]
        words += [word for origin in self.origins for word in ("--origin", origin)]
        return shlex.join([*words, *(flag for flag, is_given in flags.items() if is_given)])


class LogInAgain(SessionOver):
    """The session of *profile* is over; the message contains the command that logs in again."""

    def __init__(self, reason: str, profile: Profile) -> None:
        super().__init__(reason)
        cause = SESSION_OVER_MESSAGES.get(reason, f"the session is over ({reason})")
        how = f"log in again with {profile.program}" if profile.program else f"run `{profile.login_command()}`"
        self.args = (f"{cause}: {how}",)


def token_store(name: str, kind: str = "file") -> TokenStore:
    """Return the token store of the session *name*; *kind* is one of ``STORES``.

    Raise ConfigurationError if it cannot be written, or lacks its key or its extra.
    """
    folder = _folder()
    _require_writable(folder)
    match kind:
        case "keyring":
            return _keyring_store(name, folder)
        case "encrypted":
            return FileStore(folder / f"{name}.tokens.json", key=key_from_environment())
        case _:
            return FileStore(folder / f"{name}.tokens.json")


class ProfileStore:
    """The tokens of *profile* in *store*, as long as its name belongs to its server (rule 5)."""

    def __init__(self, store: TokenStore, profile: Profile) -> None:
        self.inner, self._profile = store, profile

    def load(self) -> StoredSession:
        """Return the record; one that is over if the name belongs to another server now, or to none."""
        record = self.inner.load()
        if record.tokens is not None and not self._is_current():
            return replace(record, tokens=None, idempotency_key=None, over="other_login")
        return record

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replace *expected* by *record*. Return False if another record is there, or another server."""
        return self._is_current() and self.inner.save(record, expected)

    def lock(self, timeout: float) -> AbstractContextManager[Lease | None]:
        """Return the lock of the store."""
        return self.inner.lock(timeout)

    def _is_current(self) -> bool:
        try:
            return find_profile(self._profile.name).server == self._profile.server
        except InvalidRequest:  # logged out: no profile has the name
            return False


def key_file(name: str) -> Path:
    """Return where the proof key of the session *name* is, if it is in a file."""
    return _folder() / f"{name}{KEY_SUFFIX}"


def key_name(name: str) -> str:
    """Return the name of the proof key of the session *name* in the keyring; no session can have that name."""
    return f"{name}:proof-key"


def login_lock(name: str) -> AbstractContextManager[None]:
    """Return a lock that one login to *name* holds at a time. Entering it raises StoreBusy if another has it."""
    return file_lock(str(prepare_folder() / f"{valid_name(name)}.login"), 0.0)


def _keyring_store(name: str, folder: Path) -> TokenStore:
    try:
        from unbroken.client.stores.keyring import KeyringStore  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise ConfigurationError(str(error)) from error
    return KeyringStore(KEYRING_SERVICE, name, locks=folder / "locks")


def prepare_folder() -> Path:
    """Return the folder, made if it is missing. Raise ConfigurationError if no session can be kept there."""
    folder = _folder(make=True)
    _require_writable(folder)
    return folder


def _require_writable(folder: Path) -> None:
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"the folder {folder} is read-only: refreshed tokens are stored there")


def profile_names() -> list[str]:
    """Return the names of all profiles. Raise ConfigurationError if the folder cannot be read."""
    try:
        found = (file.removesuffix(".json") for file in os.listdir(_folder()) if file.endswith(".json"))
        return sorted(name for name in found if NAME.fullmatch(name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError(f"the profiles in {_folder()} cannot be read: {error.strerror}") from error


def find_profile(name: str) -> Profile:
    """Return the profile *name*. Raise InvalidRequest, which lists the names, or ConfigurationError."""
    file = _folder() / f"{valid_name(name)}.json"
    try:
        return _parse_profile(name, json.loads(read_private(file, "the profile", closed_by_folder=True)))
    except FileNotFoundError:
        # The name is not repeated: it may be a token in the wrong place.
        raise InvalidRequest(f"there is no session of that name; {_known_names(name)}") from None
    except OSError as error:
        raise ConfigurationError(f"the profile {file} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigurationError(
            f"{file} is damaged, or is no profile: move it away and log in again, or use another name"
        ) from error


def _known_names(name: str) -> str:
    names = profile_names()
    if not names:
        return "make one with `unbroken login URL --as NAME`"
    import difflib  # noqa: PLC0415  # for a mistyped name only

    nearest = difflib.get_close_matches(name, names, 1)
    return f"{f'did you mean {nearest[0]}? ' if nearest else ''}known are: {', '.join(names)}"


def save_profile(profile: Profile) -> None:
    """Write *profile* into the folder, which is made if it is missing (rule 3).

    Raise ConfigurationError if it cannot be written, InvalidRequest for a name that cannot be one.
    """
    folder, fields = _folder(make=True), asdict(profile)
    valid_name(fields.pop("name"))
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{profile.name}.", dir=folder)  # mkstemp makes it 0600
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"unbroken": PROFILE_FORMAT, **fields}, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / f"{profile.name}.json")
    except OSError as error:
        raise ConfigurationError(f"the profile cannot be written to {folder}: {error.strerror}") from error


def delete_profile(name: str, kind: str = "") -> None:
    """Delete the profile and its tokens, also token files that were damaged and set aside.

    *kind* is where tokens without a profile may be, which knows it otherwise.
    """
    folder = _folder()
    with contextlib.suppress(UnbrokenError):  # no profile, or one that cannot be read
        profile = find_profile(name)
        kind = profile.store
        delete_proof_key(profile)
    if kind == "keyring":
        _delete_secret(name)
    tokens = folder / f"{name}.tokens.json"
    for file in (folder / f"{name}.json", tokens, *folder.glob(f"{tokens.name}.damaged-*")):
        _delete_file(file)


def delete_proof_key(profile: Profile) -> None:
    """Delete the key that the session of *profile* is bound to, wherever it is."""
    if profile.dpop == "keyring":
        _delete_secret(key_name(profile.name))
    elif profile.dpop == "file":
        _delete_file(key_file(profile.name))


def _delete_file(file: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if _is_ours(file):
            os.unlink(file)


def _is_ours(file: Path) -> bool:
    """Return whether *file* holds a profile, tokens or a key, damaged or not (rule 6). Raise FileNotFoundError."""
    beginning = read_beginning(file, "the file", BEGINNING_BYTES, closed_by_folder=True)
    if file.suffix == KEY_SUFFIX:
        return beginning.startswith(KEY_BEGINNING)
    return was_record(b"".join(beginning.split()))  # a profile has white space


def _delete_secret(name: str) -> None:
    try:
        import keyring  # noqa: PLC0415  # an extra
        import keyring.errors  # noqa: PLC0415
    except ImportError:
        return
    with contextlib.suppress(keyring.errors.KeyringError):
        keyring.delete_password(KEYRING_SERVICE, name)


def valid_name(name: str) -> str:
    """Return *name*. Raise InvalidRequest if no session may have that name."""
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            "the name of a session has 1 to 64 letters, digits, '.', '_' and '-'; it does not start with '.' "
            "or end with '.tokens'"
        )
    return name


def _folder(*, make: bool = False) -> Path:
    """Return the folder of the profiles. Raise ConfigurationError if it cannot be made, or trusted (rule 1)."""
    folder = _folder_path()
    try:
        if make:
            with contextlib.suppress(FileExistsError):  # a file of that name is reported below
                folder.mkdir(mode=0o700, parents=True)
        mode = folder.stat().st_mode
        if not stat.S_ISDIR(mode):
            raise ConfigurationError(f"{folder} is not a folder: set UNBROKEN_HOME to one")
        if mode & 0o022:
            raise ConfigurationError(f"other users may write to {folder}: run `chmod 700 {shlex.quote(str(folder))}`")
        require_private_folder(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigurationError(f"the folder {folder} cannot be used: {error.strerror}") from error
    return folder


def _folder_path() -> Path:
    home, config = os.environ.get("UNBROKEN_HOME", ""), os.environ.get("XDG_CONFIG_HOME", "")
    if home:
        return Path(_user_home(), home[2:]) if home.startswith("~/") else Path(home)
    # The XDG Base Directory Specification says to ignore a relative XDG_CONFIG_HOME.
    return Path(config if os.path.isabs(config) else os.path.join(_user_home(), ".config")) / "unbroken"


def _user_home() -> str:
    """Return the home of the user. Raise ConfigurationError for a user without one, as in some containers."""
    import pwd  # noqa: PLC0415  # POSIX only

    try:
        return os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise ConfigurationError("this user has no home: set HOME, or UNBROKEN_HOME to a folder for sessions") from None


def _parse_profile(name: str, document: dict[str, object]) -> Profile:
    if int(str(document.pop("unbroken"))) > PROFILE_FORMAT:
        raise ConfigurationError(f"the profile {name} was written by a newer version of unbroken: upgrade this one")
    origins = document.pop("origins", [])
    if not isinstance(origins, list):
        raise TypeError("not a profile")
    profile = Profile(name=name, origins=tuple(origins), **document)  # type: ignore[arg-type]  # checked below
    texts = (
        *profile.server,
        profile.revocation_endpoint,
        profile.client_id,
        profile.client_secret,
        profile.user,
        profile.resource,
        profile.issuer,
        profile.program,
        profile.authorization_endpoint,
        profile.device_authorization_endpoint,
        profile.redirect_uri,
        profile.dpop_alg,
        *origins,
    )
    flags = (profile.plain_http, profile.pasted, profile.returns_issuer)
    is_valid = profile.kind in ("unbroken", "oauth2") and profile.store in STORES
    is_valid = is_valid and profile.client_auth in ("basic", "post") and profile.login_by in ("", "web", "device")
    is_valid = is_valid and profile.dpop in ("", *KEY_PLACES) and profile.dpop_alg in ("", *PROOF_ALGORITHMS)
    is_valid = is_valid and all(isinstance(flag, bool) for flag in flags)
    if not is_valid or not all(isinstance(text, str) for text in texts):
        raise TypeError("not a profile")
    return profile
