"""``POST /login``, and RFC 6749 §4.3: a name and a password in, tokens out. Who may is decided in ``login.py``."""

from __future__ import annotations

from typing import Any

from unbroken.errors import InvalidRequest, LoginRefused
from unbroken.server.http import Request, Response, Route, flag_of, json_response, text_of
from unbroken.server.login import Logins
from unbroken.server.sessions import Sessions
from unbroken.tokens import Granted

__all__ = ["LoginEndpoints"]

LONGEST_CLIENT_ID = 200  # it stands in every access token, which must fit into a header


class LoginEndpoints:
    """Begins sessions."""

    def __init__(self, sessions: Sessions, logins: Logins) -> None:
        self._sessions, self._logins = sessions, logins
        self.routes = (Route("POST", "/login", self._login),)

    async def _login(self, request: Request, _: str) -> Response:
        fields = request.json()
        granted = await self.log_in(
            request,
            text_of(fields, "username"),
            text_of(fields, "password"),
            scope=text_of(fields, "scope", required=False),
            label=text_of(fields, "label", required=False),
            client_id=text_of(fields, "client_id", required=False) or "first-party",
            coordinated=flag_of(fields, "coordinated"),
        )
        return json_response(granted.to_response())

    async def log_in(self, request: Request, name: str, password: str, **about: Any) -> Granted:
        """The tokens of a new session. Raises LoginRefused, InvalidRequest, InvalidScope, or TryLater."""
        _check_client_id(about["client_id"])
        subject = await self._logins.subject(name, password)
        await self._logins.check_scope(subject, about["scope"])
        agent = request.headers.get("user-agent", "")
        granted = await self._sessions.alogin(subject, ip=request.client_ip, user_agent=agent, **about)
        if not await self._logins.is_still(subject, name, password):
            await self._sessions.alogout(refresh_token=granted.refresh_token)
            raise LoginRefused("wrong user name or password")
        return granted


def _check_client_id(client_id: str) -> None:
    """RFC 6749 appendix A.1: printable ASCII."""
    if len(client_id) > LONGEST_CLIENT_ID or not (client_id.isascii() and client_id.isprintable()):
        raise InvalidRequest(f"client_id has at most {LONGEST_CLIENT_ID} printable ASCII characters")
