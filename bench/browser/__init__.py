"""The browser's module in a real Chromium, and what others make of the same. ``python -m bench browser``.

1. Each burst has a login and pages of its own. Bursts are taken in turns, and ratios within a turn, so that a busy
   machine does to all of them what it does to one.
2. The server knows nothing of ours: rotation is strict, and using a refresh token twice revokes its family.
"""
