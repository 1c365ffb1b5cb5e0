"""A server in Django, in one file: ``python examples/server_django.py migrate``, then ``createsuperuser``, then
``runserver``; or ``uvicorn examples.server_django:app``.
"""

import os
import sys
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.management import execute_from_command_line
from django.http import JsonResponse
from django.urls import include, path

from unbroken.django import access_token_required

settings.configure(
    SECRET_KEY=os.environ.get("SECRET_KEY", "not for production"),
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "unbroken.django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("USERS", "users.db")}},
    MIDDLEWARE=["unbroken.django.middleware.AccessTokenMiddleware"],
    ROOT_URLCONF=__name__,
    UNBROKEN={"STORE": os.environ.get("UNBROKEN_STORE", "sqlite:///unbroken.db")},
)
django.setup()


@access_token_required
def orders(request: Any) -> JsonResponse:
    return JsonResponse({"orders of": request.user.get_username()})


urlpatterns = [path("orders", orders), path("", include("unbroken.django.urls"))]
app = get_asgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
