"""Sessions for Django: the endpoints over Django's own users, ``request.auth``, and a decorator for views.

    INSTALLED_APPS = [..., "unbroken.django"]
    MIDDLEWARE = [..., "unbroken.django.middleware.AccessTokenMiddleware"]  # after Django's AuthenticationMiddleware
    UNBROKEN = {"STORE": "sqlite:////var/lib/shop/sessions.db", "ISSUER": "https://shop.example.com"}

    urlpatterns = [..., path("", include("unbroken.django.urls"))]

    @access_token_required                  # or @access_token_required(scope="read"); for plain and async views
    def orders(request):
        return JsonResponse({"orders of": request.user.username, "device": current_claims(request).sid})

1. ``conf.py`` describes the setting. The store is the one that its URL names, not Django's ORM: a refresh is one
   statement, and the stores are those of every other framework.
2. Users are Django's (``users.py``): who may log in by ``django.contrib.auth.authenticate`` may log in here. A changed
   password, and a user that is deactivated or deleted, revokes the user's sessions.
3. ``request.session`` and its cookie stay Django's: the admin works as before. A request with an access token belongs
   to the token's user, whatever cookies come with it.
4. The endpoints, and views behind ``access_token_required``, need no CSRF token: no browser sends a bearer token by
   itself, and cookies are checked where they are read (``server/http/cookies.py`` rule 3).
5. ``log_in`` starts a session for a user whom the project has authenticated by itself, ``log_out`` ends one.
6. ``sessions()`` lists and revokes sessions and rotates keys. For functions of your own in the setting:
   ``authenticate_user``, ``is_active_user``, ``security_stamp_of``, ``user_of``, ``permissions_of`` and ``groups_of``.
7. For Django REST framework: ``unbroken.django.rest``. For ``django.contrib.auth.authenticate``:
   ``unbroken.django.backends.AccessTokenBackend``.
"""

try:
    import django as django
except ModuleNotFoundError as error:
    message = "unbroken.django needs Django: pip install 'unbroken[django]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from unbroken.django.claims import AccessTokenRequired, current_claims
from unbroken.django.decorators import access_token_required
from unbroken.django.logins import alog_in, alog_out, log_in, log_out
from unbroken.django.rights import groups_of, permissions_of
from unbroken.django.runtime import authenticate_user, is_active_user, security_stamp_of, sessions, user_of

__all__ = [
    "AccessTokenRequired",
    "access_token_required",
    "alog_in",
    "alog_out",
    "authenticate_user",
    "current_claims",
    "groups_of",
    "is_active_user",
    "log_in",
    "log_out",
    "permissions_of",
    "security_stamp_of",
    "sessions",
    "user_of",
]
