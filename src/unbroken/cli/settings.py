"""What ``unbroken serve`` serves, and how: one frozen value, from flags, the environment and one TOML file.

1. A flag goes before the environment, that before the file, that before the default.
2. A setting has one name everywhere: ``access_ttl`` is ``--access-ttl``, ``UNBROKEN_ACCESS_TTL``, and ``access_ttl`` in
   the file. What belongs together is a table there: ``cookies_mode`` is ``mode`` of ``[cookies]``.
3. An unknown name and a wrong value are refused, in one line that says where it stands.
4. Secrets come from the environment, or from a file of their own: never from a flag, which other users can read.

The file is ``--config``, ``UNBROKEN_CONFIG``, or ``unbroken.toml`` of the working directory if there is one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from unbroken.cli.parsers import DURATION, FLAG, TABLE, TEXT, WORDS, InvalidValue, SettingType, choice, integer
from unbroken.errors import ConfigurationError

__all__ = [
    "DEFAULT_FILE",
    "TABLES",
    "Setting",
    "Settings",
    "SettingsResult",
    "checked_settings",
    "known_settings",
    "read_settings",
    "variable",
]

DEFAULT_FILE = "unbroken.toml"
TABLES = ("cookies", "guard")
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of one setting. *places*: where it may come from."""

    name: str
    kind: SettingType
    about: str
    default: Any
    places: tuple[str, ...]


def _of(kind: SettingType, default: Any, about: str, *places: str, secret: bool = False) -> Any:
    metadata = {"kind": kind, "about": about, "places": places or ("flag", "environment", "file")}
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Times are in seconds; an empty text means that there is none."""

    store: str = _of(  # there may be a password in it
        TEXT, "sqlite:///unbroken.db", "Where the sessions are: sqlite:///FILE, postgresql://…, redis://…", secret=True
    )
    host: str = _of(TEXT, "127.0.0.1", "Address to listen on.")
    port: int = _of(integer(0, 65535), 8400, "Port; 0 takes a free one.")
    workers: int = _of(integer(1, 64), 1, "Server processes.")
    shutdown_timeout: float = _of(DURATION, 20.0, "How long requests in flight may take when the server is stopped.")
    forwarded_allow_ips: tuple[str, ...] = _of(
        WORDS, (), "Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed: addresses, networks, or *."
    )

    access_ttl: float = _of(DURATION, 1800.0, "Life of an access token.")
    refresh_ttl: float = _of(DURATION, 7 * DAY, "Life of an unused refresh token.")
    max_age: float = _of(DURATION, 90 * DAY, "Life of a session, however active.")
    grace: float = _of(DURATION, 10.0, "How long a just-used refresh token is forgiven.")
    issuer: str = _of(TEXT, "", "`iss` of the tokens: the URL that clients know; without it, the address.")
    audience: str = _of(TEXT, "unbroken", "`aud` of the tokens.")

    prefix: str = _of(TEXT, "/auth", "Where the endpoints are.")
    password_grant: bool = _of(FLAG, False, "Open RFC 6749 §4.3 at /auth/token.")
    default_scope: tuple[str, ...] = _of(WORDS, (), "The words of scope that every user may ask for.")
    scopes: tuple[tuple[str, tuple[str, ...]], ...] = _of(TABLE, (), "Further words for some users, by name.", "file")
    origins: tuple[str, ...] = _of(WORDS, (), "Other sites whose pages may call the endpoints.")
    cookies_mode: str = _of(choice("off", "refresh", "both"), "off", "Which tokens browsers may keep in cookies.")
    cookies_secure: bool = _of(FLAG, True, "Cookies for https only; off is for this machine alone.")
    cookies_same_site: str = _of(choice("Strict", "Lax", "None"), "Strict", "Which sites' requests carry the cookies.")
    cookies_domain: str = _of(TEXT, "", "A domain whose hosts all get the cookies.")
    cookies_path: str = _of(TEXT, "", "Where browsers see the endpoints, if not at the prefix.")
    cookies_name: str = _of(TEXT, "unbroken", "How the cookies' names begin.")
    guard_enabled: bool = _of(FLAG, True, "Slow down who guesses passwords.")
    guard_account_burst: int = _of(integer(1, 10**6), 10, "Wrong passwords at once, for an account.")
    guard_account_every: float = _of(DURATION, 60.0, "After those: one each.")
    guard_address_burst: int = _of(integer(1, 10**6), 50, "Wrong passwords at once, from an address.")
    guard_address_every: float = _of(DURATION, 10.0, "After those: one each.")
    guard_known_for: float = _of(DURATION, 90 * DAY, "How long an address stays known to an account.")

    seal_key: tuple[str, ...] = _of(
        WORDS, (), "The keys that seal the store's keys, the newest first.", "environment", secret=True
    )
    seal_key_file: str = _of(TEXT, "", "A file with such keys, in place of UNBROKEN_SEAL_KEY.")
    webhook_url: str = _of(TEXT, "", "Where events are posted.")
    webhook_secret: str = _of(TEXT, "", "The secret that signs them.", "environment", secret=True)
    webhook_secret_file: str = _of(TEXT, "", "A file with the secret that signs them.")
    log_format: str = _of(choice("text", "json"), "text", "How log lines look.")
    log_level: str = _of(choice("debug", "info", "warning", "error"), "info", "From where on something is logged.")
    access_log: bool = _of(FLAG, False, "Log every request.")
    metrics_port: int = _of(integer(0, 65535), 0, "Where Prometheus finds the metrics; 0: nowhere.")
    metrics_host: str = _of(TEXT, "127.0.0.1", "The address of that port.")
    demo: bool = _of(FLAG, False, "Serve the demo page at /demo too, with sessions of its own.", "flag", "environment")


def known_settings() -> dict[str, Setting]:
    """All settings, by name."""
    return {
        one.name: Setting(one.name, one.metadata["kind"], one.metadata["about"], one.default, one.metadata["places"])
        for one in fields(Settings)
    }


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"UNBROKEN_{name.upper()}"


@dataclass(frozen=True, slots=True)
class SettingsResult:
    """What was read: the settings, the file they came from, and all that is wrong with them, a line each."""

    settings: Settings
    file: Path | None
    wrong: tuple[str, ...] = ()


def read_settings(
    flags: Mapping[str, str | bool | None], environment: Mapping[str, str] | None = None, config: str | None = None
) -> SettingsResult:
    """The settings that *flags*, the environment and the file give. What is wrong keeps its default."""
    environment = os.environ if environment is None else environment
    wrong: list[str] = []
    file, table = _file(config or environment.get("UNBROKEN_CONFIG", ""), wrong)
    values = _values_of_file(file, table, wrong)
    for name, setting in known_settings().items():
        place, found = _found(name, flags.get(name), environment)
        if place and "environment" in setting.places:
            _take(values, setting, place, found, wrong)
    return SettingsResult(Settings(**values), file, tuple(wrong))


def _found(name: str, flag: str | bool | None, environment: Mapping[str, str]) -> tuple[str, str | bool]:
    """Where a flag or the environment gives *name*, and what; an empty variable counts as none."""
    if flag is not None:
        return "--" + name.replace("_", "-"), flag
    if found := environment.get(variable(name), ""):
        return variable(name), found
    return "", ""


def _take(values: dict[str, Any], setting: Setting, place: str, found: str | bool, wrong: list[str]) -> None:
    try:
        values[setting.name] = setting.kind.of_text(found) if isinstance(found, str) and setting.kind.of_text else found
    except InvalidValue as error:
        wrong.append(f"{place} {error}")


def _file(config: str, wrong: list[str]) -> tuple[Path | None, dict[str, Any]]:
    path = Path(config or DEFAULT_FILE)
    if not config and not path.is_file():
        return None, {}
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        wrong.append(f"{path} cannot be read: {error.strerror}")
    except tomllib.TOMLDecodeError as error:
        wrong.append(f"{path} is not valid TOML: {error}")
    except UnicodeDecodeError:
        wrong.append(f"{path} is not valid UTF-8")
    return path, {}


def _values_of_file(file: Path | None, table: dict[str, Any], wrong: list[str]) -> dict[str, Any]:
    known, values = known_settings(), {}
    for key, value in _flat(table):
        setting = known.get(key.replace(".", "_"))
        if setting is None or "file" not in setting.places or not _is_spelled(key, setting.name):
            wrong.append(f"{file}: {key} {_unknown(key, setting)}")
            continue
        try:
            values[setting.name] = setting.kind.of_toml(value)
        except InvalidValue as error:
            wrong.append(f"{file}: {key} {error}")
    return values


def _flat(table: dict[str, Any]) -> list[tuple[str, Any]]:
    """The keys of the file, with a dot between a table and its key."""
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        if key in TABLES and isinstance(value, dict):
            found += [(f"{key}.{inner}", one) for inner, one in value.items()]
        else:
            found.append((key, value))
    return found


def _is_spelled(key: str, name: str) -> bool:
    return key == _key(name)


def _key(name: str) -> str:
    """How a setting is called in the file."""
    table, _, rest = name.partition("_")
    return f"{table}.{rest}" if table in TABLES else name


def _unknown(key: str, setting: Setting | None) -> str:
    if setting is not None and "file" not in setting.places:
        return f"does not belong in this file: set {variable(setting.name)}, or {setting.name}_file"
    keys = [_key(name) for name, known in known_settings().items() if "file" in known.places]
    near = get_close_matches(_key(key), keys, 1, 0.7)
    return f"is no setting{f': is it {near[0]}?' if near else ''}"


def checked_settings(read: SettingsResult) -> Settings:
    """The settings. Raises ConfigurationError if anything is wrong with them."""
    if read.wrong:
        more = f" (and {len(read.wrong) - 1} more: see unbroken check)" if len(read.wrong) > 1 else ""
        raise ConfigurationError(read.wrong[0] + more)
    return read.settings
