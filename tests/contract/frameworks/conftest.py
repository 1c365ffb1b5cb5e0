"""The server as its clients meet it: an HTTP address. Each framework runs the same tests."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from tests.support import faces
from tests.support.faces import FACES, PASSWORD, Wire, wired
from unbroken.server import Cookies, MemorySessionStore, Sessions


@pytest.fixture(params=sorted(FACES), scope="module")
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    with wired(request.param, MemorySessionStore()) as found:
        yield found


@pytest.fixture(params=sorted(FACES), scope="module")
def case_sensitive(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A server that keeps tokens in cookies, and whose directory tells capitals apart."""
    people = {"ada": "secret", "Ada": PASSWORD, "bob": PASSWORD}
    sessions = Sessions(MemorySessionStore())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faces, "authenticate", lambda name, password: name if people.get(name) == password else None)
        with FACES[request.param](sessions, cookies=Cookies("both")) as port:
            url = f"http://127.0.0.1:{port}"
            with httpx2.Client(base_url=url, timeout=30) as http:
                yield Wire(url, http, sessions)
