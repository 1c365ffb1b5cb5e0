"""Who am I, and "your devices": what the holder of an access token may see of its own sessions, name, and end; and the
ticket for a connection without headers.
"""

from __future__ import annotations

from unbroken.errors import InvalidRequest
from unbroken.server.http.authentication import RequestAuthenticator
from unbroken.server.http.messages import (
    NO_STORE,
    Request,
    Response,
    Route,
    introspection_response,
    json_response,
    text_of,
)
from unbroken.server.sessions import Sessions

__all__ = ["SessionEndpoints"]

LONGEST_LABEL = 200


class SessionEndpoints:
    """Shows callers their own sessions, and ends them. *tickets* opens ``/ticket``."""

    def __init__(self, sessions: Sessions, callers: RequestAuthenticator, *, tickets: bool = True) -> None:
        self._sessions, self._callers = sessions, callers
        self.routes = (
            Route("GET", "/session", self._session),
            Route("GET", "/sessions", self._my_sessions),
            Route("POST", "/sessions/revoke-others", self._revoke_others),
            Route("DELETE", "/sessions/{sid}", self._end_session),
            Route("PATCH", "/sessions/{sid}", self._rename_session),
            *((Route("POST", "/ticket", self._ticket),) if tickets else ()),
        )

    async def _session(self, request: Request, _: str) -> Response:
        return json_response(introspection_response(await self._callers.require(request)))

    async def _my_sessions(self, request: Request, _: str) -> Response:
        caller = await self._callers.require(request)
        found = await self._sessions.alist_sessions(caller.subject)
        return json_response({"sessions": [info.to_json(current=info.sid == caller.sid) for info in found]})

    async def _rename_session(self, request: Request, sid: str) -> Response:
        caller, fields = await self._callers.require(request), request.json()
        if "label" not in fields:
            raise InvalidRequest("label is missing")
        label = text_of(fields, "label", required=False)
        if len(label) > LONGEST_LABEL:
            raise InvalidRequest(f"a label has at most {LONGEST_LABEL} characters")
        info = await self._sessions.arename(sid, label, subject=caller.subject)
        return _none() if info is None else json_response(info.to_json(current=info.sid == caller.sid))

    async def _end_session(self, request: Request, sid: str) -> Response:
        caller = await self._callers.require(request)
        if not await self._sessions.arevoke(sid, subject=caller.subject):
            return _none()
        return Response(204, NO_STORE)

    async def _revoke_others(self, request: Request, _: str) -> Response:
        caller = await self._callers.require(request)
        return json_response({"revoked": await self._sessions.arevoke_others(caller.subject, keep=caller.sid)})

    async def _ticket(self, request: Request, _: str) -> Response:
        ticket = await self._sessions.aticket(await self._callers.require(request))
        return json_response(ticket.to_response())


def _none() -> Response:
    return json_response({"error": "not_found", "error_description": "you have no such session"}, 404)
