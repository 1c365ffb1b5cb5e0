"""How to describe five backends that nobody wrote for this library: about five lines each, by the public names alone.

Each takes the backend's URL. In all of them only ``over`` ends a session: what is not listed there, a 500 in whatever
place, a response without tokens, means try later, and keeps the tokens.
"""

from __future__ import annotations

from unbroken import Dialect, RequestTemplate, ResponseMatch, TokenFields


def status_in_body(url: str) -> Dialect:
    """Errors repeat their status in the body; the refresh is a GET with the refresh token in its query.

    A 401 of somebody else, a gateway's page for one, has no such body, and neither refreshes nor ends anything.
    """
    return Dialect(
        refresh=RequestTemplate(url + "/user/refresh", "GET", "query"),
        login=RequestTemplate(url + "/login"),
        challenge=ResponseMatch.of(401, field="statusCode", values=(401,)),
        ends_session=ResponseMatch.of(401, 403, field="statusCode", values=(401, 403)),
    )


def code_in_200(url: str) -> Dialect:
    """Every response is a 200 with a code in its body; the response with the tokens says what stands before the token.

    The codes 401, 402 and 403 end the session; 500, or a 200 without tokens, is the backend's trouble and passes.
    """
    return Dialect(
        refresh=RequestTemplate(url + "/admin/refreshToken", "GET", "query", {"refresh_token": "refreshToken"}),
        tokens=TokenFields("data.token", "data.refreshToken", prefix="data.tokenHead"),
        challenge=ResponseMatch.of(200, 401, field="code", values=(401,)),
        succeeded=ResponseMatch.of(200, field="code", values=(200,)),
        ends_session=ResponseMatch.of(200, 401, field="code", values=(401, 402, 403)),
    )


def bearer_json(url: str) -> Dialect:
    """Bearer tokens and plain 401; the refresh is JSON and is refused with 401 or 403."""
    return Dialect(
        refresh=RequestTemplate(url + "/auth/refresh-token", rename={"refresh_token": "refreshToken"}),
        login=RequestTemplate(url + "/login"),
        tokens=TokenFields("accessToken", "refreshToken"),
        ends_session=ResponseMatch.of(401, 403),
    )


def own_header(url: str) -> Dialect:
    """The bare token in the header ``token``; whatever is wrong is a 400, and a code in the body says what it is."""
    return Dialect(
        refresh=RequestTemplate(url + "/token/refresh", "POST", "query", {"refresh_token": "refreshToken"}),
        tokens=TokenFields("data.accessToken", "data.refreshToken"),
        header="token",
        scheme="",
        challenge=ResponseMatch.of(400, field="code", values=(401,)),
        succeeded=ResponseMatch.of(200, field="code", values=(200,)),
        ends_session=ResponseMatch.of(400, field="code", values=(402,)),
    )


def kept_refresh(url: str) -> Dialect:
    """Bearer tokens and plain 401; a response without a refresh token leaves the old one in force (RFC 6749 §6)."""
    return Dialect(
        refresh=RequestTemplate(url + "/refresh-token", rename={"refresh_token": "refreshToken"}),
        login=RequestTemplate(url + "/login"),
        tokens=TokenFields("accessToken", "refreshToken"),
        ends_session=ResponseMatch.of(401, 403),
    )
