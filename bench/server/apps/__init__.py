"""The applications that are measured. Each module has ``app()``, and ``tokens(n)``: n fresh sessions over an empty
store at ``BENCH_STORE``, and what each client begins with.
"""

from __future__ import annotations

import os


def store() -> str:
    """The URL of this contender's own store."""
    return os.environ["BENCH_STORE"]
