"""What ends a user's sessions: signals of the user model (rule 3 of ``users.py``).

By then the change is committed. So a store that does not answer is no error of the view that made the change: the log
says whose sessions go on, and how they are ended.
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

ENDS = "_unbroken_ends"  # on a user between the two signals of a save: the subject whose sessions it ends


def watch_users() -> None:
    """Ends sessions from now on, in this process."""
    user = auth.get_user_model()
    for model in (model for model in apps.get_models() if issubclass(model, user)):  # proxies send signals of their own
        pre_save.connect(_about_to_save, model, dispatch_uid="unbroken")
        post_save.connect(_saved, model, dispatch_uid="unbroken")
        post_delete.connect(_deleted, model, dispatch_uid="unbroken")


def _about_to_save(
    *, instance: Any, raw: bool, using: str, update_fields: Collection[str] | None = None, **_: Any
) -> None:
    setattr(instance, ENDS, None)
    field = runtime().users.field
    told = {"password", "is_active", instance._meta.pk.name if field == "pk" else field}
    if raw or instance._state.adding or (update_fields is not None and not told & set(update_fields)):
        return
    before = type(instance)._base_manager.using(using).filter(pk=instance.pk).first()
    if before is not None and _ends(before, instance, update_fields):
        setattr(instance, ENDS, runtime().users.subject_of(before))


def _ends(before: Any, after: Any, update_fields: Collection[str] | None) -> bool:
    users = runtime().users
    if users.subject_of(before) != users.subject_of(after) or (before.is_active and not after.is_active):
        return True
    if getattr(after, "_password", None) is not None:  # set_password was called
        return True
    renewed = update_fields is not None and set(update_fields) == {"password"}  # the same password, hashed anew
    return not renewed and getattr(before, "password", None) != getattr(after, "password", None)


def _saved(*, instance: Any, using: str, **_: Any) -> None:
    if subject := getattr(instance, ENDS, None):
        setattr(instance, ENDS, None)
        _end(subject, using)


def _deleted(*, instance: Any, using: str, **_: Any) -> None:
    _end(runtime().users.subject_of(instance), using)


def _end(subject: str, using: str) -> None:
    transaction.on_commit(lambda: _ended(subject), using=using)


def _ended(subject: str) -> None:
    try:
        runtime().sessions.revoke_subject(subject)
    except Exception:  # noqa: BLE001  # whatever it was, the change is committed
        how = f"unbroken sessions revoke --user {shlex.quote(subject)}"
        _log.exception("the sessions of %r were to be ended, and go on; end them by: %s", subject, how)
