"""What the setting ``UNBROKEN`` describes, made once in a process, when it is first needed: so after any fork."""

from __future__ import annotations

import threading
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from unbroken.django.conf import Settings, chosen
from unbroken.django.users import Users, with_fresh_connection
from unbroken.errors import ConfigurationError
from unbroken.server.http.authentication import RequestAuthenticator, TokenVerifier
from unbroken.server.http.endpoints import Endpoints
from unbroken.server.sessions import Sessions
from unbroken.server.stores import SessionStore, open_store
from unbroken.server.stores.encrypted_keys import encrypted_keys
from unbroken.server.stores.memory import MemorySessionStore

__all__ = ["Runtime", "authenticate", "is_active", "reset", "route_table", "runtime", "sessions", "user_of"]

_making = threading.Lock()
_made: list[Runtime] = []


class Runtime:
    """The users, and the sessions with their endpoints, or a verifier. With *store* in place of the one that is set."""

    def __init__(self, now: Settings, store: SessionStore | None = None) -> None:
        self.users = Users(now.subject_field)
        self._sessions: Sessions | None = None
        self._endpoints: Endpoints | None = None
        self.verifies: TokenVerifier
        self.looks_at_users = _looks_at_users(now)
        if now.verifier is not None:
            self.verifies, places = now.verifier, now.endpoints
            self.callers = RequestAuthenticator(
                self.verifies, cookies=places.get("cookies"), origins=places.get("origins", ())
            )
            return
        self.verifies = self._sessions = now.own_sessions or Sessions(
            store or _sealed(open_store(now.store), now), policy=now.policy, **dict(now.sessions)
        )
        asked = with_fresh_connection(now.authenticate) or self.users.authenticate
        settings: Any = {name: with_fresh_connection(value) for name, value in now.endpoints.items()}
        if now.authenticate is None:
            settings.setdefault("is_active", self.users.is_active)
        self._endpoints = Endpoints(self._sessions, asked, **settings)
        self.callers = self._endpoints.callers

    @property
    def sessions(self) -> Sessions:
        """Raises ImproperlyConfigured where they are another service's."""
        if self._sessions is None:
            raise ImproperlyConfigured("UNBROKEN: with VERIFIER there are no sessions here, they are its server's")
        return self._sessions

    @property
    def endpoints(self) -> Endpoints:
        """Raises ImproperlyConfigured where there are none."""
        if self._endpoints is None:
            raise ImproperlyConfigured("UNBROKEN: with VERIFIER there are no endpoints: leave unbroken.django.urls out")
        return self._endpoints


def runtime() -> Runtime:
    """The site of this process. Raises ImproperlyConfigured."""
    if not _made:
        with _making:
            if not _made:
                _made.append(_opened())
    return _made[0]


def sessions() -> Sessions:
    """The sessions of this process: to list them, to end them, to rotate keys. Raises ImproperlyConfigured."""
    return runtime().sessions


def authenticate(username: str, password: str) -> str | None:
    """The subject of the Django user with this name and password, or None: for an AUTHENTICATE that asks for more."""
    return runtime().users.authenticate(username, password)


def is_active(subject: str) -> bool:
    """Whether tokens call an active Django user *subject*: for IS_ACTIVE, where AUTHENTICATE is your own."""
    return runtime().users.is_active(subject)


def user_of(subject: str) -> Any:
    """The Django user whom tokens call *subject*; None if there is none, or none that is active. Blocks."""
    return runtime().users.get(subject)


def route_table() -> Endpoints:
    """The endpoints, to see where they are: nothing is opened for that, so that ``manage.py check`` needs no store."""
    return Runtime(setting(), MemorySessionStore()).endpoints


def setting() -> Settings:
    """The setting as it is now. Raises ImproperlyConfigured."""
    return chosen(getattr(settings, "UNBROKEN", {}))


def reset() -> None:
    """The next one who asks makes everything anew."""
    _made.clear()


def _looks_at_users(now: Settings) -> bool:
    """Whether a session is to end with its Django user: not if that is switched off, and not by itself where something
    else has said who somebody is.
    """
    asked = now.endpoints.get("is_active", is_active)
    if asked is None:
        return False
    return (now.authenticate is None and now.verifier is None) or now.endpoints.get("is_active") is is_active


def _sealed(store: SessionStore, now: Settings) -> SessionStore:
    return encrypted_keys(store, now.seal_keys) if now.seal_keys else store


def _opened() -> Runtime:
    try:
        return Runtime(setting())
    except ConfigurationError as error:
        raise ImproperlyConfigured(f"UNBROKEN: {error}") from error


def _changed(*, setting: str, **_: Any) -> None:
    """``override_settings`` is at work, in a test."""
    if setting == "UNBROKEN":
        reset()


setting_changed.connect(_changed, dispatch_uid="unbroken")
