"""Contenders on requests, each set up as its documentation says."""

from __future__ import annotations

import datetime as dt
import os
import threading
from typing import Any

from bench.clients.start import Client, Pair, Start, of_requests


def _token(start: Start) -> dict[str, Any]:
    return {
        "access_token": start.access_token,
        "refresh_token": start.refresh_token,
        "token_type": "Bearer",
        "expires_at": int(start.expires_at),
    }


def authlib(start: Start) -> Client:
    from authlib.integrations.requests_client import OAuth2Session

    settings = {"token_endpoint": start.token_url, "token_endpoint_auth_method": "none"}
    return of_requests(OAuth2Session("bench", token=_token(start), **settings), start.url)


def requests_oauthlib(start: Start) -> Client:
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    from requests_oauthlib import OAuth2Session

    settings = {"auto_refresh_url": start.token_url, "auto_refresh_kwargs": {"client_id": "bench"}}
    session = OAuth2Session("bench", token=_token(start), token_updater=lambda token: None, **settings)
    return of_requests(session, start.url)


def requests_oauth2client(start: Start) -> Client:
    import requests
    from requests_oauth2client import BearerToken, OAuth2AccessTokenAuth, OAuth2Client

    expires_at = dt.datetime.fromtimestamp(start.expires_at, dt.UTC)
    token = BearerToken(start.access_token, refresh_token=start.refresh_token, expires_at=expires_at)
    session = requests.Session()
    session.auth = OAuth2AccessTokenAuth(OAuth2Client(start.token_url, auth="bench", testing=True), token)
    return of_requests(session, start.url)


def google_credentials(start: Start) -> Any:
    """google-auth's user credentials, with this server's endpoint."""
    from google.oauth2.credentials import Credentials

    expiry = dt.datetime.fromtimestamp(start.expires_at, dt.UTC).replace(tzinfo=None)
    where = {"token_uri": start.token_url, "client_id": "bench", "client_secret": "bench"}
    return Credentials(start.access_token, refresh_token=start.refresh_token, expiry=expiry, **where)


def google_auth(start: Start) -> Client:
    from google.auth.transport.requests import AuthorizedSession

    return of_requests(AuthorizedSession(google_credentials(start)), start.url)


def singleflight(start: Start) -> Client:
    import requests
    from singleflight_auth import RequestsSingleFlightAuth

    tokens, session = Pair(start), requests.Session()

    def refresh() -> str:
        response = requests.post(start.token_url, data=start.form(tokens.refresh), timeout=60)
        response.raise_for_status()
        return tokens.take(response.json())

    session.auth = RequestsSingleFlightAuth(get_token=lambda: tokens.access, refresh=refresh)
    return of_requests(session, start.url)


def naive_queue(start: Start) -> Client:
    """A flag and a queue, with threads."""
    import requests
    from requests.adapters import HTTPAdapter

    tokens, session, lock = Pair(start), requests.Session(), threading.Lock()
    session.mount("http://", HTTPAdapter(pool_maxsize=100))
    queue: list[threading.Event] = []
    refreshing = False

    def send(method: str, path: str, body: Any) -> int:
        headers = {"authorization": f"Bearer {tokens.access}"}
        return session.request(method, start.url + path, data=body, headers=headers, timeout=60).status_code

    def joined() -> threading.Event | None:
        nonlocal refreshing
        with lock:
            if not refreshing:
                refreshing = True
                return None
            queue.append(threading.Event())
            return queue[-1]

    def request(method: str, path: str, body: Any = None) -> int:
        nonlocal refreshing
        status = send(method, path, body)
        if status != 401:
            return status
        if waiting := joined():
            waiting.wait()
            return send(method, path, body)
        try:
            response = session.post(start.token_url, data=start.form(tokens.refresh), timeout=60)
            if response.status_code != 200:
                raise RuntimeError("the refresh was refused")
            tokens.take(response.json())
            for event in queue:
                event.set()
            queue.clear()
            return send(method, path, body)
        finally:
            refreshing = False

    return Client(lambda path: request("GET", path), lambda *how: request("POST", *how), session.close)
