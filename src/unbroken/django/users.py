"""Django's users as the accounts: who may log in, whom a token means, and what revokes a user's sessions.

1. ``django.contrib.auth.authenticate`` decides, by whatever backends are set; an inactive user may not log in. Django
   rehashes passwords by itself. Backends get the request of the login, because some need it.
2. One field identifies a user in tokens: the primary key, unless SUBJECT_FIELD names another. It must be unique.
3. A changed password, ``is_active = False``, another value of that field, and a deletion revoke the user's sessions,
   once the change is committed. ``QuerySet.update`` and ``bulk_update`` send no signals: after a password change by
   them, call ``sessions().revoke_subject(subject)``. A user whom they deactivate is shut out all the same: cannot log
   in, is never ``request.user``, does not pass ``access_token_required``, and loses the session at the next refresh.
4. A database that does not respond is "try later" for the client, and an error in the log.
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

from unbroken._concurrency import in_sync_context
from unbroken.errors import TryLater
from unbroken.server.login.accounts import Subject

__all__ = ["Users", "login_request", "mapping_db_errors", "with_fresh_connection"]

T = TypeVar("T")
_log = logging.getLogger("unbroken")
_login_request: ContextVar[HttpRequest | None] = ContextVar("unbroken_login_request", default=None)
DATABASE_RETRY_SECONDS = 2.0


@contextmanager
def login_request(request: HttpRequest) -> Iterator[None]:
    """Make *request* the one that Django's authentication backends get, within the block (rule 1)."""
    token = _login_request.set(request)
    try:
        yield
    finally:
        _login_request.reset(token)


class Users:
    """The users of the project's user model, identified by *field*. All methods block."""

    def __init__(self, field: str) -> None:
        self.field = field

    def authenticate(self, username: str, password: str) -> str | None:
        """Return the subject of the user with this name and password, or None. Raise TryLater."""
        return _with_connection(lambda: self._authenticate(username, password))

    def get(self, subject: str) -> Any:
        """Return the active user that *subject* names, or None."""
        model = auth.get_user_model()
        try:
            user = model._default_manager.get(**{self.field: subject})
        except (model.DoesNotExist, ValueError, TypeError, OverflowError, ValidationError):
            return None
        return user if user.is_active else None

    def is_active(self, subject: str) -> bool:
        """Return whether *subject* names an active user. Raise TryLater."""
        return _with_connection(lambda: self.get(subject) is not None)

    def subject_of(self, user: Any) -> str:
        """Return the subject that tokens call *user* by."""
        return str(getattr(user, self.field))

    def _authenticate(self, username: str, password: str) -> Subject | None:
        model: Any = auth.get_user_model()
        user: Any = auth.authenticate(_login_request.get(), **{model.USERNAME_FIELD: username, "password": password})
        if user is None or not user.is_active:
            return None
        subject = Subject(self.subject_of(user))
        subject.is_unchanged = lambda: _with_connection(lambda: self._has_same_password(subject, user))
        return subject

    def _has_same_password(self, subject: str, user: Any) -> bool:
        now = self.get(subject)
        return now is not None and getattr(now, "password", None) == getattr(user, "password", None)


def with_fresh_connection(value: Any) -> Any:
    """Return a plain function of the application such that it may use the database in any thread; else *value*."""
    if not inspect.isroutine(value) or inspect.iscoroutinefunction(value):
        return value

    @functools.wraps(value)
    def function(*args: Any) -> Any:
        return _with_connection(lambda: value(*args))

    return function


def mapping_db_errors(work: Callable[[], T]) -> T:
    """Return what *work* returns. Raise TryLater if the database does not respond (rule 4)."""
    try:
        return work()
    except (OperationalError, InterfaceError) as error:
        _log.exception("the database of the users does not respond")
        raise TryLater("the database of the users does not respond", retry_after=DATABASE_RETRY_SECONDS) from error


def _with_connection(work: Callable[[], T]) -> T:
    """Return what *work* returns, with a usable database connection. Raise TryLater."""
    if in_sync_context():
        return mapping_db_errors(work)
    try:  # Django cares for the connections of request threads, not for those of worker threads
        close_old_connections()
        return mapping_db_errors(work)
    finally:
        close_old_connections()
