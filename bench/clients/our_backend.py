"""Our own server as a process: ``python -m bench.clients.our_backend`` prints its URL and serves until it is killed.

``/family`` responds like that of ``backend.py``; ``POST /family?name=`` loses the response to the next refresh.
"""

from __future__ import annotations

import sys

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unbroken.testing import LoopbackServer


def main() -> None:
    async def family(request: Request) -> Response:
        if request.method == "POST":
            server.lose_next()
        alarms = server.alarms()
        counted = {"refreshes": server.refreshes, "logins": 0, "reuses": alarms, "revoked": alarms > 0, "bodies": []}
        return JSONResponse(counted)

    server = LoopbackServer(more=[Route("/family", family, methods=["GET", "POST"])])
    with server:
        print(server.url, flush=True)
        sys.stdin.read()  # until its parent ends


if __name__ == "__main__":
    main()
