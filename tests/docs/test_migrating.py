"""The page about moving: its applications serve both kinds of tokens, and take each old refresh token once."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import flask
import jwt
import pytest
from django.test import Client
from django.urls import path

from tests.docs.pages import ROOT, examples, run
from tests.support import django_project
from unbroken.errors import InvalidGrant, InvalidToken, TryLater
from unbroken.server import MemorySessionStore, OldTokens, Sessions

django_project.set_up()
from rest_framework.permissions import IsAuthenticated  # noqa: E402  # needs the settings
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402

PAGE = ROOT / "docs" / "migrating.md"
ISSUER = "https://shop.example.com"


def block(name: str) -> dict[str, Any]:
    """What the block of the page defines that defines *name*."""
    [code] = [one for one in examples(PAGE, "py") if re.search(rf"^(?:def|class) {name}\b", one, re.MULTILINE)]
    made: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, str(PAGE), "exec"), made)
    return made


def test_the_applications_of_the_page_run_in_their_order_and_twice(tmp_path: Path) -> None:
    for _ in range(2):
        done = run("\n\n".join(examples(PAGE)), tmp_path)
        assert done.returncode == 0, done.stderr


# ---- simplejwt -------------------------------------------------------------------------------------------------------


class Orders(APIView):
    permission_classes = (IsAuthenticated,)

    def get(self, request: Any) -> Response:
        return Response({"of": request.user.username})


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_both_classes_of_rest_framework_stand_in_one_list(order: str) -> None:
    from django.contrib.auth import get_user_model
    from rest_framework_simplejwt.authentication import JWTAuthentication
    from rest_framework_simplejwt.tokens import RefreshToken

    from unbroken.django import sessions
    from unbroken.django.rest import AccessTokenAuthentication, BesideAccessTokens

    class Theirs(BesideAccessTokens, JWTAuthentication):
        pass

    classes = (
        (AccessTokenAuthentication, JWTAuthentication) if order == "ours first" else (Theirs, AccessTokenAuthentication)
    )
    orders = path("orders", Orders.as_view(authentication_classes=classes))
    refresh = path("api/token/refresh", block("RefreshView")["RefreshView"].as_view())
    users: Any = get_user_model().objects
    user = users.create_user(f"ada {order}", password="correct horse")
    with django_project.chosen(orders, refresh, STORE="memory:", ISSUER=ISSUER):
        client = Client()

        def asked(token: str) -> Any:
            return client.get("/orders", headers={"authorization": f"Bearer {token}"})

        def refreshed(token: str) -> Any:
            return client.post("/api/token/refresh", {"refresh": token}, content_type="application/json")

        first = RefreshToken.for_user(user)
        assert asked(str(first.access_token)).json() == {"of": user.username}
        moved = refreshed(str(first)).json()
        assert asked(moved["access"]).json() == {"of": user.username}
        again = refreshed(moved["refresh"]).json()
        assert asked(again["access"]).json() == {"of": user.username}
        [*_, latest] = sessions().list_sessions(str(user.pk))
        assert latest.subject == str(user.pk)
        for junk in ("junk", str(first), str(first.access_token)[:-4] + "abcd"):
            assert asked(junk).status_code == 401, junk
        assert refreshed("junk").status_code == 401
        user.is_active = False
        user.save()
        assert refreshed(str(RefreshToken.for_user(user))).status_code == 401
    user.delete()


# ---- flask-jwt-extended and other services ---------------------------------------------------------------------------


def test_tokens_of_flask_jwt_extended_are_read() -> None:
    from flask_jwt_extended import JWTManager, create_access_token, create_refresh_token

    app = flask.Flask(__name__)
    app.config["JWT_SECRET_KEY"] = "the secret of the old tokens, long enough"
    JWTManager(app)
    with app.app_context():
        access, refresh = create_access_token("ada"), create_refresh_token("ada")
    read = block("flask_subject")["flask_subject"]
    sessions = Sessions(MemorySessionStore(), issuer=ISSUER)
    old = OldTokens(
        sessions,
        read_access=lambda token: read(app, token, "access"),
        read_refresh=lambda token: read(app, token, "refresh"),
    )
    assert old.verify(access).subject == "ada"
    assert sessions.verify(old.refresh(refresh).access_token).subject == "ada"
    with pytest.raises(InvalidToken):
        old.verify(refresh)
    with pytest.raises(InvalidGrant):
        old.refresh(access)


class Keys:
    """In the place of PyJWKClient."""

    def __init__(self, key: Any, error: Exception | None = None) -> None:
        self.key, self.error = key, error

    def get_signing_key_from_jwt(self, token: str) -> Any:
        if self.error:
            raise self.error
        return self


def test_tokens_of_another_service_are_read() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    claims = {"sub": "auth0|7", "iss": "https://theirs.example/", "aud": "shop", "exp": int(time.time()) + 60}
    token = jwt.encode(claims, key, algorithm="ES256")
    foreign = block("foreign_subject")["foreign_subject"]
    sessions = Sessions(MemorySessionStore(), issuer=ISSUER)

    def old(keys: Keys, audience: str = "shop") -> OldTokens:
        return OldTokens(sessions, read_access=foreign(keys, "https://theirs.example/", audience))

    assert old(Keys(key.public_key())).verify(token).subject == "auth0|7"
    with pytest.raises(InvalidToken):
        old(Keys(key.public_key()), "another shop").verify(token)
    with pytest.raises(InvalidToken):
        old(Keys(ec.generate_private_key(ec.SECP256R1()).public_key())).verify(token)
    with pytest.raises(TryLater):
        old(Keys(None, jwt.PyJWKClientConnectionError("down"))).verify(token)
