"""The setting ``UNBROKEN``: a dict. Names are upper case; one that nobody knows is an error, not a surprise.

    STORE            where sessions are: postgresql://…, redis://…, sqlite:////path/sessions.db, memory:
    SUBJECT_FIELD    the field of the user model that names a user in tokens; "pk". It must never change
    AUTHENTICATE     asks something else than Django's users: the subject for a name and a password, or None
    ACCESS_TTL, REFRESH_TTL, …     fields of ``unbroken.server.Policy``: seconds, or a timedelta
    ISSUER, AUDIENCE, CLAIMS, …    parameters of ``unbroken.server.Sessions``
    PREFIX, SCOPES_OF, …           those of the endpoints, ``unbroken.server.http.endpoints.EndpointSettings``
    SESSIONS         a ``Sessions`` of one's own, in place of the store and all that it would be made with
    VERIFIER         an ``unbroken.verifier.Verifier``, in place of either, where the sessions are another service's:
                     then there are no endpoints; SUBJECT_FIELD, IS_ACTIVE, COOKIES and ORIGINS may be set beside it
    SEAL_KEY, SEAL_KEY_FILE        seals the keys in the store; a key or a list of them, the newest first

Where a function is wanted, its dotted path will do. Functions of the endpoints may ask the database; CLAIMS and
ON_EVENT may not: under ASGI they are called in the event loop.
"""

from __future__ import annotations

import difflib
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
from unbroken.server.http.endpoints import EndpointSettings
from unbroken.server.sessions import Sessions

__all__ = ["Settings", "chosen"]

POLICY = {one.name.upper(): one.name for one in fields(Policy)}
ENDPOINTS = {name.upper(): name for name in EndpointSettings.__annotations__}
SESSIONS = {
    name.upper(): name for name in inspect.signature(Sessions).parameters if name not in ("store", "policy", "clock")
}
SEALS = ("SEAL_KEY", "SEAL_KEY_FILE")
OWN = ("STORE", "SESSIONS", "VERIFIER", "SUBJECT_FIELD", "AUTHENTICATE", *SEALS)
BESIDE_VERIFIER = {"VERIFIER", "SUBJECT_FIELD", "IS_ACTIVE", "COOKIES", "ORIGINS"}
TEXTS = {
    "STORE",
    *SEALS,
    "SUBJECT_FIELD",
    *(name for name, own in ENDPOINTS.items() if re.search(r"\bstr\b", str(EndpointSettings.__annotations__[own]))),
    *(
        name
        for name, own in SESSIONS.items()
        if str(inspect.signature(Sessions).parameters[own].annotation) in ("str", "str | None")
    ),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The setting as it was read. ``sessions`` and ``endpoints`` are keyword arguments."""

    store: str = field(default="", repr=False)
    own_sessions: Sessions | None = None
    verifier: TokenVerifier | None = None
    seal_keys: list[str] = field(default_factory=list, repr=False)
    subject_field: str = "pk"
    authenticate: Any = None
    policy: Policy = Policy()
    sessions: Mapping[str, Any] = field(default_factory=dict)
    endpoints: EndpointSettings = field(default_factory=EndpointSettings)


def chosen(given: object) -> Settings:
    """The setting *given*. Raises ImproperlyConfigured, in words that say what to change."""
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured("UNBROKEN must be a dict, such as {'STORE': 'sqlite:////path/sessions.db'}")
    for name in given:
        _check_known(str(name))
    if len(given.keys() & {"STORE", "SESSIONS", "VERIFIER"}) != 1:
        words = "UNBROKEN needs STORE, a URL such as sqlite:////path/sessions.db; or else SESSIONS, or VERIFIER"
        raise ImproperlyConfigured(words)
    _check_alone(given)
    values = {name: _value(name, value) for name, value in given.items()}
    return Settings(
        store=values.get("STORE", ""),
        own_sessions=values.get("SESSIONS"),
        verifier=values.get("VERIFIER"),
        seal_keys=_seal_keys(values),
        subject_field=values.get("SUBJECT_FIELD", "pk"),
        authenticate=values.get("AUTHENTICATE"),
        policy=_policy(values),
        sessions=_picked(values, SESSIONS),
        endpoints=EndpointSettings(**_picked(values, ENDPOINTS)),  # type: ignore[typeddict-item]  # names are checked
    )


def _policy(values: Mapping[str, Any]) -> Policy:
    try:
        return Policy(**_picked(values, POLICY))
    except ConfigurationError as error:
        raise ImproperlyConfigured(f"UNBROKEN: {error}") from error


def _check_known(name: str) -> None:
    known = [*OWN, *POLICY, *SESSIONS, *ENDPOINTS]
    if name not in known:
        near = difflib.get_close_matches(name.upper(), known, n=1)
        meant = f"did you mean {near[0]}?" if near else "known are " + ", ".join(known)
        raise ImproperlyConfigured(f"UNBROKEN has no setting {name!r}: {meant}")


def _check_alone(given: Mapping[str, Any]) -> None:
    """With sessions of one's own, or none, what they would be made with says nothing."""
    if "VERIFIER" in given and (idle := sorted(given.keys() - BESIDE_VERIFIER)):
        raise ImproperlyConfigured(f"UNBROKEN: with VERIFIER there are no sessions here: take out {', '.join(idle)}")
    if "SESSIONS" in given and (idle := sorted(given.keys() & {*POLICY, *SESSIONS, *SEALS})):
        raise ImproperlyConfigured(f"UNBROKEN: with SESSIONS, set {', '.join(idle)} where those sessions are made")


def _value(name: str, value: Any) -> Any:
    if name in POLICY:
        return _seconds(name, value)
    if name in SEALS:
        return value
    if name in TEXTS and not isinstance(value, str) and name in OWN:
        raise ImproperlyConfigured(f"UNBROKEN['{name}'] must be a text")
    if name not in TEXTS:
        value = [_imported(name, one) for one in value] if isinstance(value, list | tuple) else _imported(name, value)
    if name == "SESSIONS" and not isinstance(value, Sessions):
        raise ImproperlyConfigured("UNBROKEN['SESSIONS'] must be an unbroken.server.Sessions, or the path to one")
    if name == "VERIFIER" and not hasattr(value, "averify"):
        raise ImproperlyConfigured("UNBROKEN['VERIFIER'] must be an unbroken.verifier.Verifier, or the path to one")
    return value


def _seal_keys(given: Mapping[str, Any]) -> list[str]:
    """The seal keys, the newest first; none if nothing is to be sealed."""
    if all(given.get(name) for name in SEALS):
        raise ImproperlyConfigured("UNBROKEN: set SEAL_KEY or SEAL_KEY_FILE, not both")
    try:
        if given.get("SEAL_KEY_FILE"):
            return keys_from_file(given["SEAL_KEY_FILE"])
    except (ConfigurationError, TypeError) as error:
        raise ImproperlyConfigured(f"UNBROKEN['SEAL_KEY_FILE']: {error}") from error
    keys = given.get("SEAL_KEY") or []
    found = keys.replace(",", " ").split() if isinstance(keys, str) else keys
    if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
        raise ImproperlyConfigured("UNBROKEN['SEAL_KEY'] must be a text, or a list of texts")
    return list(found)


def _imported(name: str, value: Any) -> Any:
    """What *value* names, if it is a dotted path; otherwise *value*."""
    try:
        return import_string(value) if isinstance(value, str) else value
    except ImportError as error:
        raise ImproperlyConfigured(f"UNBROKEN['{name}'] cannot be imported: {error}") from error


def _seconds(name: str, value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
        raise ImproperlyConfigured(f"UNBROKEN['{name}'] must be a number of seconds, or a timedelta")
    return float(seconds)


def _picked(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names[name]: value for name, value in values.items() if name in names}
