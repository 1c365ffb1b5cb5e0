"""An application that gunicorn loads before it forks, and uvicorn in each of its workers.

In the process that gunicorn forks from, a refresh begins when the application is loaded. Each request wants tokens
newer than those, and tells which it got.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from typing import Any

from unbroken import Session, oauth2

OLD = os.environ["PREFORK_TOKEN"]
session = Session(oauth2(os.environ["PREFORK_SERVER"] + "/token"), os.environ["PREFORK_STORE"], window=None)
if os.environ.get("PREFORK_REFRESHES"):
    session.token()
    threading.Thread(target=session.newer_token, args=(OLD,), daemon=True).start()
    time.sleep(0.1)  # the request is on its way


def said() -> bytes:
    began = time.monotonic()
    token = session.newer_token(OLD)
    return json.dumps({"pid": os.getpid(), "token": token, "seconds": time.monotonic() - began}).encode()


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    time.sleep(0.05)  # so that others of the burst go to other workers
    start_response("200 OK", [("content-type", "application/json")])
    return [said()]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        body = await asyncio.to_thread(said)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
