"""The measured applications. Each module has ``app()``, and ``tokens(n)``: it makes n sessions in the empty store at
``BENCH_STORE``, and returns the tokens of each.
"""

from __future__ import annotations

import os


def store() -> str:
    """Return the URL of this contender's own store."""
    return os.environ["BENCH_STORE"]
