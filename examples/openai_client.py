"""The OpenAI SDK with an API of your own that expects session tokens instead of a key.

The SDK takes an httpx2 client, so ``SessionAuth`` works below it: it refreshes in time, and after a challenge it
refreshes and sends the request again. The SDK sees only the second response.
"""

from __future__ import annotations

import os
import sys

import httpx2
from openai import OpenAI

from unbroken import Session
from unbroken.httpx2 import SessionAuth


def connect(session: Session, url: str) -> OpenAI:
    """Return the SDK's client for the API at *url*, with the tokens of *session*."""
    auth = SessionAuth(session, override_authorization=True)  # the SDK always sets a key, which this replaces
    return OpenAI(base_url=url, api_key="unused", http_client=httpx2.Client(auth=auth, timeout=60))


def main(url: str) -> None:
    session = Session(url)
    session.login(os.environ["API_USER"], os.environ["API_PASSWORD"])
    with connect(session, url + "/v1") as client:
        response = client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Who am I?"}])
        print(response.choices[0].message.content)


if __name__ == "__main__":
    main(sys.argv[1])
