"""The settings of the server's commands: one frozen value, from options, the environment and one TOML file.

1. An option overrides the environment, the environment the file, the file the default.
2. A setting has one name everywhere: ``access_ttl`` is ``--access-ttl``, ``UNBROKEN_ACCESS_TTL``, and ``access_ttl`` in
   the file. Some are in tables of the file: ``cookies_mode`` is ``mode`` in ``[cookies]``.
3. Every unknown name and every wrong value is reported, in one line that says where it was found. No line repeats a
   value, which may be a secret.
4. Secrets come from the environment or from a file of their own, never from an option: other users of the machine can
   read command lines. An option with a URL that contains a password is refused.

The file is ``--config``, ``UNBROKEN_CONFIG``, or ``unbroken.toml`` in the working directory if it exists.
"""

from __future__ import annotations

import functools
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

import click

from unbroken.cli.options import environment_variable
from unbroken.cli.parsers import (
    BOOLEAN,
    DURATION,
    SCOPES_BY_USER,
    TEXT,
    WORDS,
    InvalidValue,
    SettingType,
    choice,
    format_duration,
    integer,
)
from unbroken.errors import ConfigurationError

__all__ = [
    "DEFAULT_FILE",
    "Setting",
    "Settings",
    "SettingsResult",
    "read_settings",
    "setting_definitions",
    "valid_settings",
    "with_settings",
]

DEFAULT_FILE = "unbroken.toml"
TABLES = ("cookies", "proofs", "rate_limit")
DAY_SECONDS = 86400.0

Source = Literal["option", "environment", "file"]


@dataclass(frozen=True, slots=True)
class Setting:
    """The definition of one setting: its type, what it means, its default, and where it may come from."""

    name: str
    type: SettingType
    help: str
    default: Any
    sources: tuple[Source, ...]

    @property
    def option(self) -> str:
        """The option of the setting."""
        return "--" + self.name.replace("_", "-")

    @property
    def key(self) -> str:
        """The key of the setting in the file, with a dot after its table."""
        table = next((table for table in TABLES if self.name.startswith(f"{table}_")), "")
        return f"{table}.{self.name.removeprefix(f'{table}_')}" if table else self.name


def _setting(type_: SettingType, default: Any, help_: str, *sources: Source, secret: bool = False) -> Any:
    metadata = {"type": type_, "help": help_, "sources": sources or ("option", "environment", "file")}
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Times are in seconds; an empty text means that a setting is not set."""

    store: str = _setting(  # it may contain a password
        TEXT, "sqlite:///unbroken.db", "URL of the store: sqlite:///FILE, postgresql://…, redis://…", secret=True
    )
    host: str = _setting(TEXT, "127.0.0.1", "Address to listen on.")
    port: int = _setting(integer(0, 65535), 8400, "Port to listen on; 0 picks a free one.")
    workers: int = _setting(integer(1, 64), 1, "Number of server processes.")
    shutdown_timeout: float = _setting(DURATION, 20.0, "Time for requests in flight to finish when the server stops.")
    forwarded_allow_ips: tuple[str, ...] = _setting(
        WORDS, (), "Proxies to trust for X-Forwarded-For and X-Forwarded-Proto: addresses, networks, or *."
    )

    access_ttl: float = _setting(DURATION, 1800.0, "Lifetime of an access token.")
    refresh_ttl: float = _setting(
        DURATION, 7 * DAY_SECONDS, "Idle lifetime of a session: without a refresh it expires."
    )
    max_age: float = _setting(DURATION, 90 * DAY_SECONDS, "Absolute lifetime of a session.")
    grace: float = _setting(DURATION, 10.0, "Time for which a used refresh token gets the same response again.")
    max_sessions_per_subject: int = _setting(
        integer(0, 10**6), 1000, "Sessions of a user: one more login ends the one used least recently; 0: no limit."
    )
    max_shared_generations: int = _setting(
        integer(0, 10**6), 4, "Generations in a row that two parties may share: one more ends the session; 0: no limit."
    )
    on_suspicion: str = _setting(
        choice("report", "revoke"), "report", "What a sign of a second holder of a session leads to."
    )
    confirm_first_use: bool = _setting(
        BOOLEAN, False, "The first use of an access token settles its branch, for clients that store tokens first."
    )
    issuer: str = _setting(TEXT, "", "`iss` of the tokens: the URL that clients use. Without it: the address.")
    audience: str = _setting(TEXT, "unbroken", "`aud` of the tokens.")

    prefix: str = _setting(TEXT, "/auth", "Path of the endpoints.")
    password_grant: bool = _setting(BOOLEAN, False, "Accept the password grant (RFC 6749 §4.3) at /auth/token.")
    tickets: bool = _setting(BOOLEAN, True, "Serve /auth/ticket, for connections that a browser opens without headers.")
    default_scope: tuple[str, ...] = _setting(WORDS, (), "Scope that every user may have.")
    scopes: tuple[tuple[str, tuple[str, ...]], ...] = _setting(
        SCOPES_BY_USER, (), "More scope for some users, by name.", "file"
    )
    account_scopes: bool = _setting(
        BOOLEAN, False, "More scope by account, which `unbroken users scope` sets: each refresh looks it up."
    )
    origins: tuple[str, ...] = _setting(WORDS, (), "Other origins whose pages may call the endpoints (CORS).")
    cookies_mode: str = _setting(choice("off", "refresh", "both"), "off", "Tokens that browsers may keep in cookies.")
    cookies_secure: bool = _setting(BOOLEAN, True, "Send cookies over https only. Off: for http on loopback.")
    cookies_same_site: str = _setting(choice("Strict", "Lax", "None"), "Strict", "SameSite of the cookies.")
    cookies_domain: str = _setting(TEXT, "", "Domain of the cookies, to share them with all hosts below it.")
    cookies_path: str = _setting(TEXT, "", "Path of the endpoints as browsers see it. Without it: the prefix.")
    cookies_name: str = _setting(TEXT, "unbroken", "Beginning of the cookies' names.")
    proofs_binding: str = _setting(
        choice("off", "accepted", "required"), "accepted", "Whether a login binds its session to a key (DPoP)."
    )
    proofs_required_clients: tuple[str, ...] = _setting(WORDS, (), "Clients whose sessions must be bound, by id.")
    proofs_off_clients: tuple[str, ...] = _setting(WORDS, (), "Clients whose proofs are ignored, by id.")
    proofs_public_url: tuple[str, ...] = _setting(
        WORDS, (), "URLs at which clients see this server, which proofs name. Without it: the origin of the issuer."
    )
    proofs_require_nonce: bool = _setting(BOOLEAN, False, "Accept proofs only with a nonce of this server.")
    proofs_window: float = _setting(DURATION, 60.0, "Age of the oldest proof that is accepted.")
    proofs_replays: str = _setting(
        choice("process", "writes", "all"), "writes", "Requests whose proofs are remembered for all processes."
    )
    proofs_revoke_without_proof: bool = _setting(BOOLEAN, False, "Let a copied token end a session that is bound.")
    proofs_certificate_header: str = _setting(TEXT, "", "Header in which a proxy tells the hash of a TLS certificate.")
    proofs_certificate_secret: str = _setting(
        TEXT, "", "What the proxy puts before the hash, of 16 characters or more.", secret=True
    )
    rate_limit_enabled: bool = _setting(BOOLEAN, True, "Limit how often passwords and codes may be wrong.")
    rate_limit_account_burst: int = _setting(integer(1, 10**6), 10, "Wrong attempts in a row for one account.")
    rate_limit_account_every: float = _setting(DURATION, 60.0, "Time for one more attempt on that account.")
    rate_limit_address_burst: int = _setting(integer(1, 10**6), 50, "Wrong attempts in a row from one address.")
    rate_limit_address_every: float = _setting(DURATION, 10.0, "Time for one more attempt from that address.")
    rate_limit_known_for: float = _setting(
        DURATION, 90 * DAY_SECONDS, "Time for which an account knows the devices of its logins."
    )

    encryption_key: tuple[str, ...] = _setting(
        WORDS, (), "Keys that encrypt the signing keys in the store, newest first.", "environment", secret=True
    )
    encryption_key_file: str = _setting(
        TEXT, "", "File with the keys that encrypt the signing keys, instead of UNBROKEN_ENCRYPTION_KEY."
    )
    webhook_url: str = _setting(TEXT, "", "URL to which events are posted.")
    webhook_secret: str = _setting(TEXT, "", "Secret that signs the posted events.", "environment", secret=True)
    webhook_secret_file: str = _setting(TEXT, "", "File with the secret that signs the posted events.")
    log_format: str = _setting(choice("text", "json"), "text", "Format of log lines.")
    log_level: str = _setting(choice("debug", "info", "warning", "error"), "info", "Lowest level to log.")
    access_log: bool = _setting(BOOLEAN, False, "Log every request.")
    metrics_port: int = _setting(integer(0, 65535), 0, "Port of the Prometheus metrics; 0: no metrics.")
    metrics_host: str = _setting(TEXT, "127.0.0.1", "Address of the Prometheus metrics.")
    demo: bool = _setting(
        BOOLEAN, False, "Serve the demo page at /demo too, with sessions of its own.", "option", "environment"
    )


@functools.cache
def setting_definitions() -> dict[str, Setting]:
    """Return the definitions of all settings, by name."""
    return {
        one.name: Setting(one.name, one.metadata["type"], one.metadata["help"], one.default, one.metadata["sources"])
        for one in fields(Settings)
    }


# ---- reading (rules 1 to 3) ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SettingsResult:
    """The settings, the file they came from, and the problems with them, one line each."""

    settings: Settings
    file: Path | None
    problems: tuple[str, ...] = ()


def read_settings(
    options: Mapping[str, str | bool | None], environment: Mapping[str, str] | None = None, config: str | None = None
) -> SettingsResult:
    """Return the settings from *options*, the environment and the file. A wrong value is a problem, not an error."""
    environment = os.environ if environment is None else environment
    problems: list[str] = []
    file, document = _read_file(config or environment.get("UNBROKEN_CONFIG", ""), problems)
    values = _parse_document(file, document, problems)
    for name, setting in setting_definitions().items():
        given = _given(setting, options.get(name), environment)
        if given and "environment" in setting.sources:
            _parse_given(values, setting, *given, problems)
    return SettingsResult(Settings(**values), file, tuple(problems))


def valid_settings(result: SettingsResult) -> Settings:
    """Return the settings of *result*. Raise ConfigurationError if there are problems."""
    if result.problems:
        others = len(result.problems) - 1
        more = f" (and {others} more: see `unbroken check`)" if others else ""
        raise ConfigurationError(result.problems[0] + more)
    return result.settings


def _given(setting: Setting, value: str | bool | None, environment: Mapping[str, str]) -> tuple[str, str | bool] | None:
    """Return where the setting is given, an option before the environment, and its value."""
    if value is not None:
        return setting.option, value
    variable = environment_variable(setting.name)
    text = environment.get(variable, "")  # an empty variable counts as not set
    return (variable, text) if text else None


def _parse_given(values: dict[str, Any], setting: Setting, place: str, value: str | bool, problems: list[str]) -> None:
    parse = setting.type.parse_text
    if place == setting.option and isinstance(value, str) and _has_password(value):  # rule 4
        problems.append(
            f"{place} contains a password, and other users can read command lines: "
            f"set {environment_variable(setting.name)}, or {setting.key} in the file of --config"
        )
        return
    try:
        values[setting.name] = parse(value) if isinstance(value, str) and parse else value
    except InvalidValue as error:
        problems.append(f"{place} {error}")


def _has_password(text: str) -> bool:
    """Return whether *text* is a URL with a password, before its host or in its query as libpq and Redis allow it."""
    _, is_url, rest = text.partition("://")
    if not is_url:
        return bool(re.search(r"\bpassword\s*=", text, re.IGNORECASE))  # libpq also takes "host=… password=…"
    address, _, query = rest.partition("?")
    user = address.rpartition("@")[0]  # a password may hold a slash, which no URL should
    names = [name.lower() for name, value in parse_qsl(query) if value]
    return bool(user.partition(":")[2]) or any("password" in name for name in names)


def _read_file(config: str, problems: list[str]) -> tuple[Path | None, dict[str, Any]]:
    path = Path(config or DEFAULT_FILE)
    if not config and not path.is_file():
        return None, {}
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{path} cannot be read: {error.strerror}")
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{path} is not valid TOML: {error}")
    except UnicodeDecodeError:
        problems.append(f"{path} is not valid UTF-8")
    return path, {}


def _parse_document(file: Path | None, document: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    by_key = {one.key: one for one in setting_definitions().values()}
    values: dict[str, Any] = {}
    for key, value in _flatten(document):
        setting = by_key.get(key)
        if setting is None or "file" not in setting.sources:
            problems.append(f"{file}: {key} {_unknown_key(key, setting)}")
            continue
        try:
            values[setting.name] = setting.type.parse_toml(value)
        except InvalidValue as error:
            problems.append(f"{file}: {key} {error}")
    return values


def _flatten(document: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the keys and values of the file, with a dot between a table and its key."""
    found: list[tuple[str, Any]] = []
    for key, value in document.items():
        if key in TABLES and isinstance(value, dict):
            found += [(f"{key}.{inner}", one) for inner, one in value.items()]
        else:
            found.append((key, value))
    return found


def _unknown_key(key: str, setting: Setting | None) -> str:
    if setting is not None:
        return f"does not belong in this file: set {environment_variable(setting.name)}, or {setting.name}_file"
    definitions = setting_definitions()
    keys = [one.key for one in definitions.values() if "file" in one.sources]
    misplaced = definitions.get(key)  # such as cookies_mode, outside of its table
    near = get_close_matches(misplaced.key if misplaced else key, keys, 1, 0.7)
    return f"is not a setting{f': did you mean {near[0]}?' if near else ''}"


# ---- options of commands ---------------------------------------------------------------------------------------------


def with_settings(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a command ``--config`` and the options of the settings *names*, or of all settings.

    The command takes a parameter ``settings``, the valid ``Settings``: ConfigurationError is raised if there are
    problems. The one command that reports them itself takes ``result``, the ``SettingsResult``.
    """
    chosen = [one for name, one in setting_definitions().items() if not names or name in names]
    shown = [one for one in chosen if "option" in one.sources]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        takes_result = "result" in command.__annotations__

        @functools.wraps(command)
        def read_and_run(config: str | None, **given: Any) -> Any:
            options = {one.name: given.pop(one.name) for one in shown}
            result = read_settings(options, config=config)
            if takes_result:
                return command(result=result, **given)
            return command(settings=valid_settings(result), **given)

        run: Callable[..., Any] = read_and_run
        for one in reversed(shown):
            run = _option_of(one)(run)
        return _config_option(run)

    return decorate


_config_option = click.option(
    "--config", metavar="FILE", help=f"File with the settings.  [env var: UNBROKEN_CONFIG; default: {DEFAULT_FILE}]"
)


def _option_of(setting: Setting) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option of *setting*. It takes text: ``read_settings`` parses it, like that of the environment."""
    shown = format_duration(setting.default) if isinstance(setting.default, float) else setting.default
    default = f"; default: {shown}" if setting.default else ""
    help_ = f"{setting.help}  [env var: {environment_variable(setting.name)}{default}]"
    if setting.type.is_flag:
        names = f"{setting.option}/--no-{setting.option.removeprefix('--')}"
        return click.option(names, setting.name, default=None, help=help_)
    return click.option(setting.option, setting.name, metavar=setting.type.metavar, default=None, help=help_)
