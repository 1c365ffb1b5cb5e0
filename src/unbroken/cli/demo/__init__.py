"""``unbroken demo``: one login, and everything that usually breaks it, on one machine.

    50 tasks ──httpx2──▶ proxy ──▶ server (SQLite, a process of its own)
    sibling process ────▶  │          killed with -9, started again
      on the same token    └ swallows answers to refreshes
      file                                          … and at last a thief

Until the theft no task may see a 401, a SessionOver or a wrong body. Then the theft must be found out.

``unbroken demo --page`` shows the same to people: a page with a naive client beside ours (``site.py``, ``page/``).
"""
