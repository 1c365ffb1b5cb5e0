"""``unbroken demo``: one login, and everything that usually breaks it, on one machine.

    50 tasks ──httpx2──────▶ proxy ──▶ server (SQLite, a process of its own)
    second process ──────▶    │           killed with -9, started again
      on the same token file  └ drops responses to refreshes
                                                      … and finally a thief

Until the theft no task may see a 401, a SessionOver or a wrong body. Then the theft must be detected.

``unbroken demo --page`` shows the same in a browser: a page with a naive client beside ours (``site.py``, ``page/``).
"""
