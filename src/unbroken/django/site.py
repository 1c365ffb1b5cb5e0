"""What the setting ``UNBROKEN`` describes, made once in a process, when it is first needed: so after any fork."""

from __future__ import annotations

import threading
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from unbroken.django.conf import Chosen, chosen
from unbroken.django.users import Users, looked_after
from unbroken.errors import ConfigurationError
from unbroken.server.endpoints import Endpoints
from unbroken.server.sessions import Sessions
from unbroken.server.stores import Store, open_store
from unbroken.server.stores.memory import MemoryStore

__all__ = ["Site", "authenticate", "forget", "plan", "sessions", "site", "user_of"]

_making = threading.Lock()
_made: list[Site] = []


class Site:
    """The sessions, the endpoints, and the users. With *store* in place of the one that is set."""

    def __init__(self, now: Chosen, store: Store | None = None) -> None:
        self.users = Users(now.subject_field)
        self.sessions = now.own_sessions or Sessions(
            store or open_store(now.store), policy=now.policy, **dict(now.sessions)
        )
        asked = looked_after(now.authenticate) or self.users.authenticate
        settings: Any = {name: looked_after(value) for name, value in now.endpoints.items()}
        self.endpoints = Endpoints(self.sessions, asked, **settings)


def site() -> Site:
    """The site of this process. Raises ImproperlyConfigured."""
    if not _made:
        with _making:
            if not _made:
                _made.append(_opened())
    return _made[0]


def sessions() -> Sessions:
    """The sessions of this process: to list them, to end them, to rotate keys. Raises ImproperlyConfigured."""
    return site().sessions


def authenticate(username: str, password: str) -> str | None:
    """The subject of the Django user with this name and password, or None: for an AUTHENTICATE that asks for more."""
    return site().users.authenticate(username, password)


def user_of(subject: str) -> Any:
    """The Django user whom tokens call *subject*; None if there is none, or none that is active. Blocks."""
    return site().users.get(subject)


def plan() -> Endpoints:
    """The endpoints, to see where they are: nothing is opened for that, so that ``manage.py check`` needs no store."""
    return Site(setting(), MemoryStore()).endpoints


def setting() -> Chosen:
    """The setting as it is now. Raises ImproperlyConfigured."""
    return chosen(getattr(settings, "UNBROKEN", {}))


def forget() -> None:
    """The next one who asks makes everything anew."""
    _made.clear()


def _opened() -> Site:
    try:
        return Site(setting())
    except ConfigurationError as error:
        raise ImproperlyConfigured(f"UNBROKEN: {error}") from error


def _changed(*, setting: str, **_: Any) -> None:
    """``override_settings`` is at work, in a test."""
    if setting == "UNBROKEN":
        forget()


setting_changed.connect(_changed, dispatch_uid="unbroken")
