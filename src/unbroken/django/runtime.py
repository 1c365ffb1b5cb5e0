"""What the setting ``UNBROKEN`` describes. It is made once in a process, when it is first needed: after any fork."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from unbroken._concurrency import ForkFreeLock
from unbroken.django.conf import Settings, read_setting
from unbroken.django.users import Users, with_fresh_connection
from unbroken.errors import ConfigurationError
from unbroken.server.http.authentication import RequestAuthenticator, TokenVerifier
from unbroken.server.http.endpoints import Endpoints
from unbroken.server.http.settings import EndpointSettings
from unbroken.server.sessions import Sessions
from unbroken.server.stores import SessionStore, open_store
from unbroken.server.stores.memory import MemorySessionStore

__all__ = [
    "Runtime",
    "authenticate_user",
    "is_active_user",
    "reset",
    "route_table",
    "runtime",
    "security_stamp_of",
    "sessions",
    "user_of",
]

_lock = ForkFreeLock()
_runtimes: list[Runtime] = []  # none, or the one of this process; appended under the lock


class Runtime:
    """The users, and the sessions with their endpoints, or a verifier. *store* replaces the store of the setting."""

    verifier: TokenVerifier

    def __init__(self, setting: Settings, store: SessionStore | None = None) -> None:
        self.users = Users(setting.subject_field)
        self._sessions: Sessions | None = None
        self._endpoints: Endpoints | None = None
        self.checks_users = _checks_users(setting)
        if setting.verifier is not None:
            self.verifier, given = setting.verifier, EndpointSettings.of(**setting.endpoints)
            self.authenticator = RequestAuthenticator(self.verifier, cookies=given.cookies, origins=given.origins)
            return
        self.verifier = self._sessions = setting.own_sessions or Sessions(
            store or open_store(setting.store),
            policy=setting.policy,
            encryption_key=None if store else (setting.encryption_keys or None),
            scopes_of=with_fresh_connection(setting.endpoints.get("scopes_of")),
            **{**setting.sessions, "claims": with_fresh_connection(setting.sessions.get("claims"))},
        )
        authenticate = with_fresh_connection(setting.authenticate) or self.users.authenticate
        options: Any = {name: with_fresh_connection(value) for name, value in setting.endpoints.items()}
        if setting.authenticate is None:
            options.setdefault("is_active", self.users.is_active)
            options.setdefault("security_stamp", self.users.security_stamp)
        self._endpoints = Endpoints(self._sessions, authenticate, **options)
        self.authenticator = self._endpoints.authenticator

    @property
    def sessions(self) -> Sessions:
        """The sessions. Raise ImproperlyConfigured where they are another service's."""
        if self._sessions is None:
            raise ImproperlyConfigured("UNBROKEN: with VERIFIER the sessions are another service's")
        return self._sessions

    @property
    def endpoints(self) -> Endpoints:
        """The endpoints. Raise ImproperlyConfigured where there are none."""
        if self._endpoints is None:
            raise ImproperlyConfigured("UNBROKEN: with VERIFIER there are no endpoints: do not include their URLs")
        return self._endpoints


def runtime() -> Runtime:
    """Return the runtime of this process. Raise ImproperlyConfigured."""
    if not _runtimes:
        with _lock:
            if not _runtimes:
                _runtimes.append(_new_runtime())
    return _runtimes[0]


def sessions() -> Sessions:
    """Return the sessions of this process: to list and revoke them, to rotate keys. Raise ImproperlyConfigured."""
    return runtime().sessions


def authenticate_user(username: str, password: str) -> str | None:
    """Return the subject of the Django user with this name and password, or None. For an AUTHENTICATE of your own."""
    return runtime().users.authenticate(username, password)


def is_active_user(subject: str) -> bool:
    """Return whether *subject* is an active Django user. For IS_ACTIVE beside an AUTHENTICATE of your own."""
    return runtime().users.is_active(subject)


def security_stamp_of(subject: str) -> str | None:
    """Return what changes with the password of a Django user. For SECURITY_STAMP beside an AUTHENTICATE of your own."""
    return runtime().users.security_stamp(subject)


def user_of(subject: str) -> Any:
    """Return the active Django user that tokens call *subject*, or None. Blocks."""
    return runtime().users.get(subject)


def route_table() -> Endpoints:
    """Return endpoints that only show their routes. It opens no store, so ``manage.py check`` needs none."""
    return Runtime(setting(), MemorySessionStore()).endpoints


def setting() -> Settings:
    """Return the setting as it is now. Raise ImproperlyConfigured."""
    return read_setting(getattr(settings, "UNBROKEN", {}))


def reset() -> None:
    """Forget the runtime: the next use makes a new one."""
    _runtimes.clear()


def _checks_users(setting: Settings) -> bool:
    """Return whether a session needs an active Django user: by default where Django's users are the accounts."""
    is_active = setting.endpoints.get("is_active", is_active_user)
    if is_active is None:
        return False
    django_accounts = setting.authenticate is None and setting.verifier is None
    return django_accounts or setting.endpoints.get("is_active") is is_active_user


def _new_runtime() -> Runtime:
    try:
        return Runtime(setting())
    except ConfigurationError as error:
        raise ImproperlyConfigured(f"UNBROKEN: {error}") from error


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    """Follow ``override_settings`` in tests."""
    if setting == "UNBROKEN":
        reset()


setting_changed.connect(_on_setting_changed, dispatch_uid="unbroken")
