"""The OpenAI SDK against an API of one's own that wants session tokens instead of a key.

The SDK takes an httpx2 client, so ``SessionAuth`` does its whole work under it: it renews in time, and answers a
challenge with a renewal and a second try, of which the SDK sees nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator

import httpx2
from openai import OpenAI

from unbroken import Session
from unbroken.httpx2 import SessionAuth


class InsteadOfKey(SessionAuth):
    """``SessionAuth`` leaves a header alone that somebody else has set; the SDK always sets its key."""

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers.pop("Authorization", None)
        yield from super().sync_auth_flow(request)


def connect(session: Session, url: str) -> OpenAI:
    """The SDK's client of the API at *url*, in the name of *session*."""
    return OpenAI(base_url=url, api_key="unused", http_client=httpx2.Client(auth=InsteadOfKey(session), timeout=60))


def main(url: str) -> None:
    session = Session(url)
    session.login(os.environ["API_USER"], os.environ["API_PASSWORD"])
    with connect(session, url + "/v1") as client:
        answer = client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Who am I?"}])
        print(answer.choices[0].message.content)


if __name__ == "__main__":
    main(sys.argv[1])
