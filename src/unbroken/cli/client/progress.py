"""The progress of a transfer that takes its time, as one line at a terminal that is written anew.

1. It goes to standard error, and only if that is a terminal and the response does not go to one.
2. The first line comes after a second: a short transfer shows none. The last one is wiped out.
"""

from __future__ import annotations

import sys
import time
from typing import Any, BinaryIO, TextIO

__all__ = ["CountedBody", "Progress"]

FIRST_LINE_SECONDS = 1.0
NEXT_LINE_SECONDS = 0.2
WIPE_LINE = "\r\x1b[K"
UNITS = ("B", "kB", "MB", "GB", "TB")


class Progress:
    """What was sent or received so far. *is_shown* is False for a transfer that must not write (rule 1)."""

    def __init__(self, *, is_shown: bool, terminal: TextIO | None = None) -> None:
        self._terminal = sys.stderr if terminal is None else terminal
        self._is_shown = is_shown and self._terminal.isatty()
        self._due = time.monotonic() + FIRST_LINE_SECONDS
        self._has_line = False
        self._action, self._total, self._done = "", 0, 0

    def start(self, action: str, total: int) -> None:
        """Begin to count *total* bytes from none; 0: it is not known how many. *action*: "sent" or "received"."""
        self._action, self._total, self._done = action, total, 0

    def add(self, count: int) -> None:
        """Count *count* bytes more, and write a line if one is due."""
        self._done += count
        if self._is_shown and time.monotonic() >= self._due:
            self._due = time.monotonic() + NEXT_LINE_SECONDS
            self._has_line = True
            self._terminal.write(WIPE_LINE + self.line())
            self._terminal.flush()

    def line(self) -> str:
        """Return the line: ``received 12.5 MB of 50 MB (25 %)``."""
        if not self._total:
            return f"{self._action} {_size(self._done)}"
        return f"{self._action} {_size(self._done)} of {_size(self._total)} ({100 * self._done // self._total} %)"

    def end(self) -> None:
        """Wipe the line out (rule 2)."""
        if self._has_line:
            self._has_line = False
            self._terminal.write(WIPE_LINE)
            self._terminal.flush()


class CountedBody:
    """A body of a request, as the file that it is, whose bytes are counted as they are read."""

    def __init__(self, file: BinaryIO, progress: Progress, total: int) -> None:
        self._file, self._progress, self._total = file, progress, total

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to *offset*: each request, also one that is sent again, is counted from its start."""
        self._progress.start("sent", self._total)
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        data = self._file.read(size)
        self._progress.add(len(data))
        return data

    def __iter__(self) -> Any:
        while data := self.read(65536):
            yield data


def _size(count: float) -> str:
    """Return *count* bytes with three digits: ``12.5 MB``."""
    power = min(len(str(int(count))) - 1, 3 * len(UNITS) - 1) // 3
    return f"{count / 1000**power:.4g} {UNITS[power]}"
