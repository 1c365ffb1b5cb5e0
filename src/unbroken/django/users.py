"""Django's users as the accounts: who may log in, whom a token means, and what ends a user's sessions.

1. ``django.contrib.auth.authenticate`` decides, by whatever backends are set; an inactive user may not. Hashes of
   passwords are renewed by Django. Backends get the request, as some need it.
2. A user is named in tokens by one field: the primary key, unless SUBJECT_FIELD names another. It must be unique.
3. A changed password, ``is_active = False``, another value of that field, and a deletion end the sessions, once the
   change is committed. ``QuerySet.update`` and ``bulk_update`` send no signals: call ``sessions().revoke_subject(subject)``
   after a password was changed by them. A user whom they deactivate is nobody from then on all the same: cannot log
   in, is no one's ``request.user``, passes no ``session_required``, and the next refresh ends the session.
4. A database that does not answer is told to the client as "try later", and to the operator in the log.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from django.contrib import auth
from django.core.exceptions import ValidationError
from django.db import InterfaceError, OperationalError, close_old_connections
from django.http import HttpRequest

from unbroken._sync import in_sync_context
from unbroken.errors import TryLater
from unbroken.server.login.accounts import Subject

__all__ = ["Users", "asking", "mapping_db_errors", "with_fresh_connection"]

T = TypeVar("T")
_log = logging.getLogger("unbroken")
_asking: ContextVar[HttpRequest | None] = ContextVar("unbroken_asking", default=None)


@contextmanager
def asking(request: HttpRequest) -> Iterator[None]:
    """Within it, *request* is what a login came by."""
    token = _asking.set(request)
    try:
        yield
    finally:
        _asking.reset(token)


class Users:
    """The users of the project's user model, each named by *field*. The methods block."""

    def __init__(self, field: str) -> None:
        self.field = field

    def authenticate(self, username: str, password: str) -> str | None:
        """The subject of the user with this name and password; None if there is none. Raises TryLater."""
        return _looked_after(lambda: self._authenticated(username, password))

    def get(self, subject: str) -> Any:
        """The user that *subject* names; None if there is none, or none that is active."""
        model = auth.get_user_model()
        try:
            user = model._default_manager.get(**{self.field: subject})
        except (model.DoesNotExist, ValueError, TypeError, OverflowError, ValidationError):
            return None
        return user if user.is_active else None

    def is_active(self, subject: str) -> bool:
        """Whether *subject* names a user that is active. Raises TryLater."""
        return _looked_after(lambda: self.get(subject) is not None)

    def subject_of(self, user: Any) -> str:
        """The name of *user* in tokens."""
        return str(getattr(user, self.field))

    def _authenticated(self, username: str, password: str) -> Subject | None:
        model: Any = auth.get_user_model()
        user: Any = auth.authenticate(_asking.get(), **{model.USERNAME_FIELD: username, "password": password})
        if user is None or not user.is_active:
            return None
        subject = Subject(self.subject_of(user))
        subject.is_unchanged = lambda: _looked_after(lambda: self._has_still(subject, user))
        return subject

    def _has_still(self, subject: str, user: Any) -> bool:
        now = self.get(subject)
        return now is not None and getattr(now, "password", None) == getattr(user, "password", None)


def with_fresh_connection(value: Any) -> Any:
    """A plain function of the application, so that it may ask the database wherever it is called; else *value*."""
    if not inspect.isroutine(value) or inspect.iscoroutinefunction(value):
        return value

    @functools.wraps(value)
    def asked(*args: Any) -> Any:
        return _looked_after(lambda: value(*args))

    return asked


def mapping_db_errors(work: Callable[[], T]) -> T:
    """What *work* gives. Raises TryLater if the database does not answer."""
    try:
        return work()
    except (OperationalError, InterfaceError) as error:
        _log.exception("the users' database does not answer")
        raise TryLater("the users' database does not answer", retry_after=2.0) from error


def _looked_after(work: Callable[[], T]) -> T:
    """What *work* gives, with a connection to the database that is alive. Raises TryLater."""
    if in_sync_context():
        return mapping_db_errors(work)
    try:  # in a thread of ours, not of the request: Django does not look after its connections
        close_old_connections()
        return mapping_db_errors(work)
    finally:
        close_old_connections()
