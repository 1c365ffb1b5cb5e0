"""The five shapes: where each backend carries its tokens, and how it says that one is no good."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.interop.backends import dialects
from tests.interop.backends.base import Backend, Pair


def _after(prefix: str, value: str) -> str:
    return value.removeprefix(prefix) if value.startswith(prefix) else ""


class StatusInBody(Backend):
    """Repeats the status in each error's body; the refresh is a GET with the refresh token in its query."""

    refresh = ("GET", "/user/refresh")
    dialect = staticmethod(dialects.status_in_body)

    def token_of(self, value: str) -> str:
        return _after("Bearer ", value)

    async def presented_by(self, request: Request) -> str:
        return request.query_params.get("refresh_token", "")

    def granted(self, pair: Pair) -> Response:
        return JSONResponse({"access_token": pair.access} | ({"refresh_token": pair.refresh} if pair.refresh else {}))

    def challenge(self) -> Response:
        return self.error(401)

    def refused(self) -> Response:
        return self.error(401)

    def error(self, status: int) -> Response:
        return JSONResponse({"statusCode": status, "message": "no"}, status)


class CodeIn200(Backend):
    """Answers 200 to everything, with a code in the body; says what stands before the token: ``head``, space and all.

    ``status`` is that of a challenge, for backends of this family that have been mended halfway.
    """

    refresh = ("GET", "/admin/refreshToken")
    dialect = staticmethod(dialects.code_in_200)

    def __init__(self, *, head: str = "Bearer ", status: int = 200, **about: object) -> None:
        super().__init__(**about)  # type: ignore[arg-type]  # handed through
        self._head, self._status = head, status

    def token_of(self, value: str) -> str:
        return _after(self._head, value)

    async def presented_by(self, request: Request) -> str:
        return request.query_params.get("refreshToken", "")

    def granted(self, pair: Pair) -> Response:
        data = {"tokenHead": self._head, "token": pair.access} | (
            {"refreshToken": pair.refresh} if pair.refresh else {}
        )
        return JSONResponse({"code": 200, "data": data})

    def challenge(self) -> Response:
        return JSONResponse({"code": 401, "message": "token expired", "data": None}, self._status)

    def refused(self) -> Response:
        return JSONResponse({"code": 402, "message": "log in again", "data": None})

    def error(self, status: int) -> Response:
        return JSONResponse({"code": 404 if status == 401 else status, "message": "no", "data": None})


class BearerJson(Backend):
    """Plain 401, and a refresh by JSON that is refused with ``status``."""

    refresh = ("POST", "/auth/refresh-token")
    dialect = staticmethod(dialects.bearer_json)

    def __init__(self, *, status: int = 401, **about: object) -> None:
        super().__init__(**about)  # type: ignore[arg-type]  # handed through
        self._status = status

    def token_of(self, value: str) -> str:
        return _after("Bearer ", value)

    async def presented_by(self, request: Request) -> str:
        return str((await request.json()).get("refreshToken"))

    def granted(self, pair: Pair) -> Response:
        return JSONResponse({"accessToken": pair.access} | ({"refreshToken": pair.refresh} if pair.refresh else {}))

    def challenge(self) -> Response:
        return Response(status_code=401)

    def refused(self) -> Response:
        return JSONResponse({"message": "log in again"}, self._status)

    def error(self, status: int) -> Response:
        return JSONResponse({"message": "no"}, status)


class OwnHeader(Backend):
    """Carries the bare token in a header of its own, answers 400 to whatever is wrong, and a code says what it is."""

    header = "token"
    refresh = ("POST", "/token/refresh")
    dialect = staticmethod(dialects.own_header)

    def token_of(self, value: str) -> str:
        return value

    async def presented_by(self, request: Request) -> str:
        return request.query_params.get("refreshToken", "")

    def granted(self, pair: Pair) -> Response:
        data = {"accessToken": pair.access} | ({"refreshToken": pair.refresh} if pair.refresh else {})
        return JSONResponse({"code": 200, "data": data})

    def challenge(self) -> Response:
        return JSONResponse({"code": 401, "msg": "token expired"}, 400)

    def refused(self) -> Response:
        return JSONResponse({"code": 402, "msg": "log in again"}, 400)

    def error(self, status: int) -> Response:
        code = status if status >= 500 else 400
        return JSONResponse({"code": code, "msg": "no"}, code)


class KeptRefresh(BearerJson):
    """Plain 401; the refresh token may stay what it was for the whole session (``rotates=False``)."""

    refresh = ("POST", "/refresh-token")
    dialect = staticmethod(dialects.kept_refresh)
