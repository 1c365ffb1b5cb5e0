"""What pages of Firefox and WebKit have in common: everything but how a script gets there."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from typing import Any

__all__ = ["DriverPage", "ScriptError"]

SECONDS = 30.0  # that anything in a page may take


class ScriptError(Exception):
    """A script in a page failed; the message is its error's."""


class DriverPage(ABC):
    """One window."""

    @abstractmethod
    def _run(self, body: str) -> str:
        """Run the *body* of an async function; return the text that it comes to."""

    @abstractmethod
    def goto(self, url: str) -> None:
        """Load *url*, and wait until it is there."""

    @abstractmethod
    def reload(self) -> None:
        """Load the page again."""

    @abstractmethod
    def close(self) -> None:
        """Close the window."""

    def evaluate(self, function: str, argument: Any = None) -> Any:
        """Return what *function* comes to. Raises ScriptError."""
        # JSON in JSON is a text of JavaScript; the function may be async
        call = f"await ({function})(JSON.parse({json.dumps(json.dumps(argument))}))"
        script = f"try {{ return JSON.stringify({{ value: {call} }}); }} catch (error) {{ return String(error); }}"
        text = self._run(script)
        if not text.startswith("{"):
            raise ScriptError(text)
        return json.loads(text).get("value")

    def wait_for_function(self, expression: str) -> None:
        """Wait until *expression* is true."""
        ends = time.monotonic() + SECONDS
        while not self.evaluate(f"() => !!({expression})"):
            assert time.monotonic() < ends, f"{expression}: not within {SECONDS} seconds"
            time.sleep(0.01)

    def wait_for_timeout(self, milliseconds: float) -> None:
        """Wait while the page goes on."""
        time.sleep(milliseconds / 1000)
