"""Django in one file: what the two Django servers of this folder share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command


def set_up(folder: Path, apps: list[str], **more: Any) -> None:
    """Sets Django up over a fresh SQLite file in *folder*, with the user ada in it."""
    settings.configure(
        SECRET_KEY="a key for tests, long enough for HMAC",
        ALLOWED_HOSTS=["127.0.0.1"],
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", *apps],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db.sqlite3"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # slow hashes are not what is tested
        ROOT_URLCONF="__main__",
        USE_TZ=True,
        **more,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User

    User.objects.create_user("ada", password="correct horse")
