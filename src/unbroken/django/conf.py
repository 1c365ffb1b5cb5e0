"""The setting ``UNBROKEN``: a dict with upper-case names. An unknown name is an error that names the nearest one.

    STORE            where sessions are: postgresql://…, redis://…, sqlite:////path/sessions.db, memory:
    SUBJECT_FIELD    the field of the user model that identifies a user in tokens; "pk". It must never change
    AUTHENTICATE     replaces Django's users: returns the subject for a name and a password, or None
    ACCESS_TTL, REFRESH_TTL, …     fields of ``unbroken.server.Policy``; times are seconds, or a timedelta
    ISSUER, AUDIENCE, CLAIMS, …    parameters of ``unbroken.server.Sessions``
    PREFIX, SCOPES_OF, …           fields of ``unbroken.server.EndpointSettings``
    SESSIONS         your own ``Sessions``, in place of the store and of everything that it would be made with
    VERIFIER         an ``unbroken.verifier.Verifier``, in place of both, where the sessions are another service's:
                     then there are no endpoints; SUBJECT_FIELD, IS_ACTIVE, COOKIES and ORIGINS may be set beside it
    ENCRYPTION_KEY, ENCRYPTION_KEY_FILE    encrypts the keys in the store; a key or a list of keys, the newest first.
                     SQLite has a file with a key beside it; elsewhere one must be set, or "none"

1. Everything is checked when Django starts. The store is opened when it is first needed.
2. A function, and any other object, may be given by its dotted path.
3. Functions of the endpoints, and CLAIMS, may use the database. ON_EVENT may not: under ASGI it runs in the event loop.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from unbroken._encryption import keys_from_file
from unbroken.errors import ConfigurationError
from unbroken.server.core.rotation import Policy
from unbroken.server.http.authentication import TokenVerifier
from unbroken.server.http.settings import OTHER_WORDS, EndpointOptions, EndpointSettings, suggestion
from unbroken.server.sessions import Sessions
from unbroken.server.stores.encrypted_keys import check_key

__all__ = ["Settings", "read_setting"]

POLICY = {one.name.upper(): one.name for one in fields(Policy)}
NO_DURATIONS = ("MAX_SESSIONS_PER_SUBJECT", "MAX_SHARED_GENERATIONS", "ON_SUSPICION")
ENDPOINTS = {one.name.upper(): one.name for one in fields(EndpointSettings)}
SESSIONS = {
    name.upper(): name
    for name in inspect.signature(Sessions).parameters
    if name not in ("store", "policy", "clock", "encryption_key", "scopes_of")  # the last is one of the endpoints' too
}
ENCRYPTION = ("ENCRYPTION_KEY", "ENCRYPTION_KEY_FILE")
OWN = ("STORE", "SESSIONS", "VERIFIER", "SUBJECT_FIELD", "AUTHENTICATE", *ENCRYPTION)
BESIDE_VERIFIER = {"VERIFIER", "SUBJECT_FIELD", "IS_ACTIVE", "COOKIES", "ORIGINS"}
STRINGS = ("STORE", "SUBJECT_FIELD", "ISSUER", "AUDIENCE", "PREFIX")
NOT_IMPORTED = (*STRINGS, *ENCRYPTION, "ORIGINS")  # their strings are no dotted paths
DOTTED_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


@dataclass(frozen=True, slots=True)
class Settings:
    """The setting as it was read. ``sessions`` and ``endpoints`` are keyword arguments."""

    store: str = field(default="", repr=False)
    own_sessions: Sessions | None = None
    verifier: TokenVerifier | None = None
    encryption_keys: list[str] = field(default_factory=list, repr=False)
    subject_field: str = "pk"
    authenticate: Any = None
    policy: Policy = Policy()
    sessions: Mapping[str, Any] = field(default_factory=dict)
    endpoints: EndpointOptions = field(default_factory=EndpointOptions)


def read_setting(given: object) -> Settings:
    """Return what *given* describes. Raise ImproperlyConfigured, which says what to change."""
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured("UNBROKEN must be a dict, such as {'STORE': 'sqlite:////path/sessions.db'}")
    for name in given:
        _check_name(str(name))
    if len(given.keys() & {"STORE", "SESSIONS", "VERIFIER"}) != 1:
        raise ImproperlyConfigured(
            "UNBROKEN needs one of STORE, a URL such as sqlite:////path/sessions.db; SESSIONS; or VERIFIER"
        )
    _check_combination(given)
    values = {name: _value(name, value) for name, value in given.items()}
    try:
        endpoints = EndpointOptions(**_picked(values, ENDPOINTS))  # type: ignore[typeddict-item]  # checked by ``of``
        EndpointSettings.of(**endpoints)
        if "STORE" in values:
            check_key(values["STORE"], _encryption_keys(values))  # rule 1: nothing is opened yet
        policy = Policy(**_picked(values, POLICY))
    except ConfigurationError as error:
        raise ImproperlyConfigured(f"UNBROKEN: {error}") from error
    return Settings(
        store=values.get("STORE", ""),
        own_sessions=values.get("SESSIONS"),
        verifier=values.get("VERIFIER"),
        encryption_keys=_encryption_keys(values),
        subject_field=values.get("SUBJECT_FIELD", "pk"),
        authenticate=values.get("AUTHENTICATE"),
        policy=policy,
        sessions=_picked(values, SESSIONS),
        endpoints=endpoints,
    )


def _check_name(name: str) -> None:
    known = [*OWN, *POLICY, *SESSIONS, *ENDPOINTS]
    if name not in known:
        other_words = {word.upper(): meant.upper() for word, meant in OTHER_WORDS.items()}
        raise ImproperlyConfigured(f"UNBROKEN has no setting {name!r}: {suggestion(name.upper(), known, other_words)}")


def _check_combination(given: Mapping[str, Any]) -> None:
    """Raise ImproperlyConfigured for settings that would have no effect beside VERIFIER or SESSIONS."""
    if "VERIFIER" in given and (unused := sorted(given.keys() - BESIDE_VERIFIER)):
        raise ImproperlyConfigured(f"UNBROKEN: with VERIFIER there are no sessions here: remove {', '.join(unused)}")
    if "SESSIONS" in given and (unused := sorted(given.keys() & {*POLICY, *SESSIONS, *ENCRYPTION})):
        raise ImproperlyConfigured(f"UNBROKEN: with SESSIONS, set {', '.join(unused)} where those sessions are made")


def _value(name: str, value: Any) -> Any:
    if name in NO_DURATIONS:
        return value  # ``Policy`` checks it
    if name in POLICY:
        return _seconds(name, value)
    if name in STRINGS and not isinstance(value, str):
        raise ImproperlyConfigured(f"UNBROKEN['{name}'] must be a string")
    if name not in NOT_IMPORTED:  # rule 2
        value = [_imported(name, one) for one in value] if isinstance(value, list | tuple) else _imported(name, value)
    if name == "SESSIONS" and not isinstance(value, Sessions):
        raise ImproperlyConfigured("UNBROKEN['SESSIONS'] must be an unbroken.server.Sessions, or the path to one")
    if name == "VERIFIER" and not hasattr(value, "averify"):
        raise ImproperlyConfigured("UNBROKEN['VERIFIER'] must be an unbroken.verifier.Verifier, or the path to one")
    if name == "AUTHENTICATE" and value is not None and not callable(value):
        raise ImproperlyConfigured("UNBROKEN['AUTHENTICATE'] must be a function, or the path to one")
    return value


def _encryption_keys(given: Mapping[str, Any]) -> list[str]:
    """Return the encryption keys, the newest first; an empty list for none."""
    if all(given.get(name) for name in ENCRYPTION):
        raise ImproperlyConfigured("UNBROKEN: set ENCRYPTION_KEY or ENCRYPTION_KEY_FILE, not both")
    try:
        if given.get("ENCRYPTION_KEY_FILE"):
            return keys_from_file(given["ENCRYPTION_KEY_FILE"])
    except (ConfigurationError, TypeError) as error:
        raise ImproperlyConfigured(f"UNBROKEN['ENCRYPTION_KEY_FILE']: {error}") from error
    keys = given.get("ENCRYPTION_KEY") or []
    found = keys.replace(",", " ").split() if isinstance(keys, str) else keys
    if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
        raise ImproperlyConfigured("UNBROKEN['ENCRYPTION_KEY'] must be a string, or a list of strings")
    return list(found)


def _imported(name: str, value: Any) -> Any:
    """Return what a dotted path names; any other *value* unchanged."""
    if not isinstance(value, str) or not DOTTED_PATH.fullmatch(value):
        return value
    try:
        return import_string(value)
    except ImportError as error:
        raise ImproperlyConfigured(f"UNBROKEN['{name}'] cannot be imported: {error}") from error


def _seconds(name: str, value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
        raise ImproperlyConfigured(f"UNBROKEN['{name}'] must be a number of seconds, or a timedelta")
    return float(seconds)


def _picked(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names[name]: value for name, value in values.items() if name in names}
