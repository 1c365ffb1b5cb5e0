"""The application ``unbroken.django``: reads the setting when Django starts, so that what is wrong is said then."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks

__all__ = ["UnbrokenConfig"]

OURS = "unbroken.django.middleware.TokenMiddleware"
DJANGOS = "django.contrib.auth.middleware.AuthenticationMiddleware"


class UnbrokenConfig(AppConfig):
    """unbroken in Django."""

    name = "unbroken.django"
    label = "unbroken"
    verbose_name = "Sessions"

    def ready(self) -> None:
        """Raises ImproperlyConfigured if the setting is wrong. Opens no store."""
        from unbroken.django.runtime import setting  # noqa: PLC0415
        from unbroken.django.signals import watch_users  # noqa: PLC0415  # models are there only now

        has_sessions = setting().verifier is None
        if has_sessions and apps.is_installed("django.contrib.auth"):
            watch_users()
        checks.register(check_order)
        checks.register(check_deployment, deploy=True)


def check_order(**_: Any) -> list[checks.CheckMessage]:
    """An error if Django's middleware comes after ours, and would set ``request.user`` again."""
    order = list(settings.MIDDLEWARE)
    if OURS in order and DJANGOS in order and order.index(OURS) < order.index(DJANGOS):
        return [checks.Error(f"{OURS} must stand after {DJANGOS} in MIDDLEWARE", id="unbroken.E001")]
    return []


def check_deployment(**_: Any) -> list[checks.CheckMessage]:
    """Warnings, in ``check --deploy``, about what is fine while one tries things out."""
    given, found = settings.UNBROKEN, list[checks.CheckMessage]()
    if "STORE" in given and "ISSUER" not in given:
        hint = "Set UNBROKEN['ISSUER'] to the address of this site, such as https://shop.example.com"
        found.append(checks.Warning("Access tokens name no issuer of their own", hint, id="unbroken.W001"))
    if given.get("STORE", "").startswith("memory:"):
        hint = "Set UNBROKEN['STORE'] to postgresql://..., redis://... or sqlite:////path"
        found.append(
            checks.Warning("Sessions end with the process, and others do not see them", hint, id="unbroken.W002")
        )
    elif "STORE" in given and not (given.get("SEAL_KEY") or given.get("SEAL_KEY_FILE")):
        hint = "Set UNBROKEN['SEAL_KEY'] or ['SEAL_KEY_FILE'] to what `unbroken keys new-seal-key` prints"
        words = "The keys lie in the store unsealed: who reads it, or a backup of it, can make tokens"
        found.append(checks.Warning(words, hint, id="unbroken.W003"))
    return found
