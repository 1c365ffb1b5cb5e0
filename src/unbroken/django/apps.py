"""The application ``unbroken.django``: reads the setting when Django starts, and checks the project."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks

from unbroken.server.stores import store_type
from unbroken.server.stores.encrypted_keys import ENVIRONMENT_VARIABLE

__all__ = ["UnbrokenConfig"]

OUR_MIDDLEWARE = "unbroken.django.middleware.AccessTokenMiddleware"
DJANGO_MIDDLEWARE = "django.contrib.auth.middleware.AuthenticationMiddleware"


class UnbrokenConfig(AppConfig):
    """The configuration of the application."""

    name = "unbroken.django"
    label = "unbroken"
    verbose_name = "Sessions"

    def ready(self) -> None:
        """Connect signals and checks. Raise ImproperlyConfigured for a wrong setting. Opens no store."""
        from unbroken.django.runtime import setting  # noqa: PLC0415
        from unbroken.django.signals import watch_users  # noqa: PLC0415  # models exist only now

        has_sessions = setting().verifier is None
        if has_sessions and apps.is_installed("django.contrib.auth"):
            watch_users()
        checks.register(check_middleware)
        checks.register(check_deployment, deploy=True)


def check_middleware(**_: Any) -> list[checks.CheckMessage]:
    """Return an error if Django's middleware comes after ours, because it would set ``request.user`` again."""
    order = list(settings.MIDDLEWARE)
    wrong = (
        OUR_MIDDLEWARE in order
        and DJANGO_MIDDLEWARE in order
        and order.index(OUR_MIDDLEWARE) < order.index(DJANGO_MIDDLEWARE)
    )
    if wrong:
        return [checks.Error(f"{OUR_MIDDLEWARE} must come after {DJANGO_MIDDLEWARE} in MIDDLEWARE", id="unbroken.E001")]
    return []


def check_deployment(**_: Any) -> list[checks.CheckMessage]:
    """Return warnings, for ``check --deploy``, about settings that are meant for trying things out."""
    given, warnings = settings.UNBROKEN, list[checks.CheckMessage]()
    if "STORE" in given and "ISSUER" not in given:
        hint = "Set UNBROKEN['ISSUER'] to the address of this site, such as https://shop.example.com"
        warnings.append(checks.Warning("Access tokens have no issuer of their own", hint, id="unbroken.W001"))
    if given.get("STORE", "").startswith("memory:"):
        hint = "Set UNBROKEN['STORE'] to postgresql://..., redis://... or sqlite:////path"
        message = "Sessions are lost with the process, and other processes do not see them"
        warnings.append(checks.Warning(message, hint, id="unbroken.W002"))
    elif "STORE" in given and _keys_are_plain(given):
        hint = "Set UNBROKEN['ENCRYPTION_KEY'] or ['ENCRYPTION_KEY_FILE'] to a key that `unbroken keys` has made"
        message = "Keys are stored unencrypted: a reader of the store, or of a backup of it, can issue tokens"
        warnings.append(checks.Warning(message, hint, id="unbroken.W003"))
    return warnings


def _keys_are_plain(given: Mapping[str, Any]) -> bool:
    """Return whether the operator chose to leave the keys in the store unencrypted."""
    if key := given.get("ENCRYPTION_KEY") or given.get("ENCRYPTION_KEY_FILE"):
        return key in ("none", ["none"])
    in_environment = os.environ.get(ENVIRONMENT_VARIABLE, "").strip() == "none"
    return in_environment and store_type(given["STORE"]).path is None
