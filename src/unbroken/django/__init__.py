"""Sessions for Django: the endpoints over Django's own users, ``request.auth``, and a decorator for views.

    INSTALLED_APPS = [..., "unbroken.django"]
    MIDDLEWARE = [..., "unbroken.django.middleware.TokenMiddleware"]    # after Django's AuthenticationMiddleware
    UNBROKEN = {"STORE": "sqlite:////var/lib/shop/sessions.db", "ISSUER": "https://shop.example.com"}

    urlpatterns = [..., path("", include("unbroken.django.urls"))]

    @session_required                       # or @session_required(scope="read"); plain and async views alike
    def orders(request):
        return JsonResponse({"orders of": request.user.username, "device": request.auth.sid})

1. The setting is described in ``conf.py``. The store is the one that its URL names, not Django's ORM: a refresh is one
   statement, and the stores are those of every other framework.
2. Users are Django's (``users.py``): whoever may log in by ``django.contrib.auth.authenticate`` may log in here. A
   changed password, and a user that is deactivated or deleted, ends the user's sessions.
3. ``request.session`` and its cookie are Django's and stay as they are: the admin works as before. A request with an
   access token is its user's, whatever cookies come with it.
4. The endpoints, and views behind ``session_required``, need no CSRF token: what they ask for is not sent by itself.
5. What lists sessions, ends them and rotates keys is ``sessions()``. For hooks: ``authenticate``, ``user_of`` and
   ``is_active``.
6. For Django REST framework: ``unbroken.django.rest``. For ``django.contrib.auth.authenticate``:
   ``unbroken.django.backends.TokenBackend``.
"""

from unbroken.django.decorators import session_required
from unbroken.django.runtime import authenticate, is_active, sessions, user_of

__all__ = ["authenticate", "is_active", "session_required", "sessions", "user_of"]
