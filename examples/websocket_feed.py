"""A WebSocket that outlives its access token.

A connection is opened with the current token. When that token expires, the server closes the connection with a code
that says so. The client reconnects with a new token, and asks for the messages after the last one it has. So no message
is lost, and none comes twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from unbroken import Session

EXPIRED = (3000, 4401)  # 3000 is the registered code for "Unauthorized"; 4401 is what many servers say instead


async def feed(session: Session, url: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the messages of a feed, in order, until the server closes it normally."""
    after = 0
    while True:
        token = await session.atoken()
        headers = {"Authorization": f"Bearer {token}"}
        async with connect(f"{url}?after={after}", additional_headers=headers) as socket:
            try:
                async for text in socket:
                    message = json.loads(text)
                    after = message["id"]
                    yield message
                return
            except ConnectionClosedError as closed:
                about_token = closed.rcvd is not None and closed.rcvd.code in EXPIRED
                if not about_token or await session.atoken() == token:
                    raise  # another error, or there is no newer token to reconnect with


async def main(url: str) -> None:
    session = Session(url)
    await session.alogin(os.environ["API_USER"], os.environ["API_PASSWORD"])
    async for message in feed(session, url.replace("http", "ws", 1) + "/feed"):
        print(message["id"], message["text"], flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
