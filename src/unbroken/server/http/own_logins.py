"""Logins and logouts that an application carries out itself: social login, a link in a mail, a sign-up, a passkey.

The application has authenticated somebody, by whatever means. ``log_in`` starts the session, and makes the response
that ``/login`` makes; frameworks translate it, or put it into a response of the application's own.

1. Cookies where the server has them and the request asks for them (``cookies.py`` rule 1), or the application does: a
   redirect, or a page, can carry tokens in no other way.
2. A proof of the client's key binds the session to this key, as at ``/login``.
3. ``is_active`` is asked, as at each refresh: a user who was deactivated does not come in by another door.
4. A logout needs a good token, as ``/logout`` does, and one of a user's own to end the user's other sessions
   (``sessions.py`` rule 1). Cookies are cleared in any case.
5. What cannot be carried is refused before a session exists.
"""

from __future__ import annotations

from typing import TypedDict

from unbroken._arguments import checked_class
from unbroken.errors import ConfigurationError, LoginRefused
from unbroken.server.core.rotation import FIRST_PARTY
from unbroken.server.core.scope import SESSIONS
from unbroken.server.core.session_info import MAX_LABEL_CHARS, NewSession
from unbroken.server.grants.rights import Allowed
from unbroken.server.http.authentication import RequestAuthenticator
from unbroken.server.http.cookies import CookieTransport
from unbroken.server.http.login import LoginEndpoints, check_client_id
from unbroken.server.http.messages import NO_STORE, InsufficientScope, Request, Response
from unbroken.server.http.sessions import manages_sessions
from unbroken.server.login.authenticator import IsActive, subject_is_active
from unbroken.server.login.security_stamp import SecurityStamps
from unbroken.server.sessions import Sessions

__all__ = ["LoginOptions", "OwnLogins"]


class LoginOptions(TypedDict, total=False):
    """What ``log_in`` takes beside the subject.

    *scope*, *label* and *client_id* are those of the session, as a login request has them. *cookies*: True for tokens
    in cookies, False for tokens in the body; without it, the request decides, and for a response of your own cookies.
    """

    scope: str
    label: str
    client_id: str
    cookies: bool | None


@checked_class("log_in", "log_out")
class OwnLogins:
    """Starts and ends sessions for the application."""

    def __init__(
        self,
        sessions: Sessions,
        authenticator: RequestAuthenticator,
        logins: LoginEndpoints,
        cookies: CookieTransport,
        rights: Allowed | None,
        stamps: SecurityStamps,
        is_active: IsActive | None,
    ) -> None:
        self._sessions, self._authenticator, self._logins = sessions, authenticator, logins
        self._cookies, self._rights, self._stamps, self._is_active = cookies, rights, stamps, is_active

    async def log_in(
        self,
        request: Request,
        subject: str,
        *,
        scope: str = "",
        label: str = "",
        client_id: str = FIRST_PARTY,
        cookies: bool | None = None,
        may_have_body: bool = True,
    ) -> Response:
        """Return the response that starts a session of *subject*, whom the application has authenticated.

        *may_have_body*: False for a response of the application's own, which can carry cookies alone. Raises
        LoginRefused for a subject that is not active, InvalidScope, InvalidProof, Forbidden, TryLater, or
        ConfigurationError.
        """
        check_client_id(client_id)
        in_cookies = self._in_cookies(request, cookies, may_have_body=may_have_body)
        if self._is_active is not None and not await subject_is_active(self._is_active, subject):  # rule 3
            raise LoginRefused("this account is not active", reason="inactive")
        proof = await self._logins.proof_of(request, client_id, hides_access_token=self._hides(in_cookies))  # rule 2
        stamp = await self._stamps.take(subject)
        new = NewSession(client_id, scope, label[:MAX_LABEL_CHARS], stamp=stamp)
        granted = await self._sessions.acreate_unless(subject, new, request.caller, rights=self._rights, proof=proof)
        return self._cookies.response_to_login(granted, in_cookies=in_cookies)

    async def log_out(self, request: Request, *, everywhere: bool = False) -> Response:
        """Return the response that ends the session of *request*; with *everywhere*, all sessions of its subject.

        Raise InvalidToken without a good token, InsufficientScope for one that may not end other sessions.
        """
        claims = await self._authenticator.require(request)
        if everywhere and not manages_sessions(claims):  # rule 4
            raise InsufficientScope(SESSIONS, "DPoP" if claims.jkt else "Bearer")
        if everywhere:
            await self._sessions.arevoke_others(claims.subject, keep=claims.sid)
        await self._sessions.arevoke(claims.sid, why="logged_out")
        return self._cookies.cleared(Response(204, NO_STORE))

    def _in_cookies(self, request: Request, wanted: bool | None, *, may_have_body: bool) -> bool:
        """Return whether the tokens go into cookies (rule 1). Raise ConfigurationError if they can go nowhere."""
        asked = self._cookies.requests_cookies(request)
        in_cookies = (asked or not may_have_body) if wanted is None else wanted
        if in_cookies and not self._cookies.are_on:
            raise ConfigurationError("log_in: tokens in cookies need the setting cookies, such as cookies='both'")
        if not in_cookies and not may_have_body:
            raise ConfigurationError("log_in: a response of your own carries cookies only: pass None for the tokens")
        if in_cookies:
            self._cookies.check_loopback(request)
        return in_cookies

    def _hides(self, in_cookies: bool) -> bool:
        return in_cookies and self._cookies.hide_access_tokens
