"""A stream of server-sent events that outlives its access token.

``SessionAuth`` gives each request a good token. When that token expires, the server ends the stream. The client
reconnects, and ``Last-Event-ID`` says where to go on. An event that was cut off in the middle is sent again.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import httpx2

from unbroken import Session
from unbroken.httpx2 import SessionAuth

CUT = (httpx2.NetworkError, httpx2.ReadTimeout, httpx2.RemoteProtocolError)


def events(client: httpx2.Client, url: str) -> Iterator[httpx2.ServerSentEvent]:
    """Yield the events at *url*, in order, until the server responds with 204: no more events."""
    last, pause = "", 3.0
    while True:
        try:
            with client.stream("GET", url, headers={"Last-Event-ID": last} if last else {}) as response:
                if response.status_code == 204:
                    return
                response.raise_for_status()
                for event in httpx2.EventSource(response):
                    last = event.id or last
                    pause = pause if event.retry is None else event.retry / 1000
                    if event.data:
                        yield event
        except CUT:
            pass  # the server sends the event again
        time.sleep(pause)


def main(url: str) -> None:
    session = Session(url)
    session.login(os.environ["API_USER"], os.environ["API_PASSWORD"])
    # A stream may be silent for a while. The server sends a comment every few seconds, so the read timeout is enough.
    with httpx2.Client(auth=SessionAuth(session), timeout=httpx2.Timeout(10, read=60)) as client:
        for event in events(client, url + "/events"):
            print(event.id, event.data, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
