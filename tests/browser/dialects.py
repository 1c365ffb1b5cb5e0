"""The five backends as options of the browser module; each says the same as its twin in ``tests/interop/backends``."""

from __future__ import annotations

from typing import Any

from tests.interop.backends import shapes
from tests.interop.backends.base import Backend

__all__ = ["DIALECTS", "dialect_of"]

DIALECTS: dict[type[Backend], dict[str, Any]] = {
    shapes.StatusInBody: {
        "refresh": {"url": "/user/refresh", "method": "GET", "encoding": "query"},
        "login": {"url": "/login"},
        "challenge": {"status": [401], "field": "statusCode", "values": [401]},
        "endsSession": {"status": [401, 403], "field": "statusCode", "values": [401, 403]},
    },
    shapes.CodeIn200: {
        "refresh": {
            "url": "/admin/refreshToken",
            "method": "GET",
            "encoding": "query",
            "rename": {"refresh_token": "refreshToken"},
        },
        "tokens": {"access_token": "data.token", "refresh_token": "data.refreshToken", "prefix": "data.tokenHead"},
        "challenge": {"status": [200, 401], "field": "code", "values": [401]},
        "succeeded": {"status": [200], "field": "code", "values": [200]},
        "endsSession": {"status": [200, 401], "field": "code", "values": [401, 402, 403]},
    },
    shapes.BearerJson: {
        "refresh": {"url": "/auth/refresh-token", "rename": {"refresh_token": "refreshToken"}},
        "login": {"url": "/login"},
        "tokens": {"access_token": "accessToken", "refresh_token": "refreshToken"},
        "endsSession": {"status": [401, 403]},
    },
    shapes.OwnHeader: {
        "refresh": {
            "url": "/token/refresh",
            "encoding": "query",
            "rename": {"refresh_token": "refreshToken"},
        },
        "tokens": {"access_token": "data.accessToken", "refresh_token": "data.refreshToken"},
        "header": "token",
        "scheme": "",
        "challenge": {"status": [400], "field": "code", "values": [401]},
        "succeeded": {"status": [200], "field": "code", "values": [200]},
        "endsSession": {"status": [400], "field": "code", "values": [402]},
    },
    shapes.KeptRefresh: {
        "refresh": {"url": "/refresh-token", "rename": {"refresh_token": "refreshToken"}},
        "login": {"url": "/login"},
        "tokens": {"access_token": "accessToken", "refresh_token": "refreshToken"},
        "endsSession": {"status": [401, 403]},
    },
}


def dialect_of(backend: Backend) -> dict[str, Any]:
    """Return the options for *backend*."""
    return DIALECTS[type(backend)]
