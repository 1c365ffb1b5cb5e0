"""Signals of the user model that revoke a user's sessions (``users.py`` rule 3).

When they revoke, the change is committed. So a store that does not respond is no error of the view that made the
change: the log says whose sessions are still alive, and which command revokes them.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection
from typing import Any

from django.apps import apps
from django.contrib import auth
from django.db import transaction
from django.db.models.signals import post_delete, post_save, pre_save

from unbroken.django.runtime import runtime

__all__ = ["watch_users"]

_log = logging.getLogger("unbroken")

REVOKES = "_unbroken_revokes"  # on a user between the two signals of a save: the subject whose sessions it revokes


def watch_users() -> None:
    """Connect the signals, in this process."""
    user_model = auth.get_user_model()
    for model in apps.get_models():
        if issubclass(model, user_model):  # a proxy model sends its own signals
            pre_save.connect(_before_save, model, dispatch_uid="unbroken")
            post_save.connect(_after_save, model, dispatch_uid="unbroken")
            post_delete.connect(_after_delete, model, dispatch_uid="unbroken")


def _before_save(
    *, instance: Any, raw: bool, using: str, update_fields: Collection[str] | None = None, **_: Any
) -> None:
    setattr(instance, REVOKES, None)
    field = runtime().users.field
    relevant = {"password", "is_active", instance._meta.pk.name if field == "pk" else field}
    if raw or instance._state.adding or (update_fields is not None and not relevant & set(update_fields)):
        return
    before = type(instance)._base_manager.using(using).filter(pk=instance.pk).first()
    if before is not None and _revokes(before, instance, update_fields):
        setattr(instance, REVOKES, runtime().users.subject_of(before))


def _revokes(before: Any, after: Any, update_fields: Collection[str] | None) -> bool:
    """Return whether the change from *before* to *after* revokes the user's sessions."""
    users = runtime().users
    if users.subject_of(before) != users.subject_of(after) or (before.is_active and not after.is_active):
        return True
    if getattr(after, "_password", None) is not None:  # set_password was called
        return True
    rehashed = update_fields is not None and set(update_fields) == {"password"}  # the same password, as Django saves it
    return not rehashed and getattr(before, "password", None) != getattr(after, "password", None)


def _after_save(*, instance: Any, using: str, **_: Any) -> None:
    if subject := getattr(instance, REVOKES, None):
        setattr(instance, REVOKES, None)
        _revoke_on_commit(subject, using)


def _after_delete(*, instance: Any, using: str, **_: Any) -> None:
    _revoke_on_commit(runtime().users.subject_of(instance), using)


def _revoke_on_commit(subject: str, using: str) -> None:
    transaction.on_commit(lambda: _revoke(subject), using=using)


def _revoke(subject: str) -> None:
    try:
        runtime().sessions.revoke_subject(subject)
    except Exception:  # noqa: BLE001  # the change is committed, whatever the error
        command = f"unbroken sessions revoke --user {shlex.quote(subject)}"
        _log.exception("the sessions of %r could not be revoked; revoke them by: %s", subject, command)
