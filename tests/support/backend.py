"""The server of ``unbroken.testing`` under the name that the tests of this project use."""

from __future__ import annotations

import json

from unbroken.testing import LoopbackServer as Backend
from unbroken.testing import running
from unbroken.testing.server import PASSWORD

__all__ = ["PASSWORD", "Backend", "as_json", "running"]


def as_json(value: object) -> bytes:
    """*value* as the bytes of a JSON body."""
    return json.dumps(value).encode()
