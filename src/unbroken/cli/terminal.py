"""What commands ask of a terminal, and the lines and tables they print there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from getpass import getpass

from unbroken.errors import ConfigurationError, InvalidRequest

__all__ = ["ask", "ask_new_password", "ask_secret", "say", "table"]


def say(text: str) -> None:
    """Prints *text* and the end of its line at once: many commands may write into one pipe, each its own lines."""
    sys.stdout.write(f"{text}\n")


def ask(what: str, option: str) -> str:
    """A line of text that is no secret. Raises ConfigurationError, which names *option*, without a terminal.

    Raises InvalidRequest when there is nothing on the line, and EOFError when somebody ends the input.
    """
    _needs_terminal(what, option)
    print(f"{what.capitalize()}: ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        print(file=sys.stderr)
        raise EOFError
    return _some_text(what, line.strip())


def ask_secret(what: str, *, from_stdin: bool, option: str) -> str:
    """A secret, unseen: from the terminal, or one line of standard input if that is none and *from_stdin*.

    Raises ConfigurationError, which names *option*, with nobody to ask, and InvalidRequest when the secret is empty.
    """
    if not from_stdin:
        _needs_terminal(what, option)
    secret = getpass(f"{what.capitalize()}: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    return _some_text(what, secret)


def ask_new_password(*, from_stdin: bool) -> str:
    """A password that is to be set: asked for twice, or the first line of standard input."""
    if from_stdin:
        return _text("password", sys.stdin.readline().rstrip("\r\n"))
    _needs_terminal("password", "--password-stdin")
    password = getpass("Password: ")
    if getpass("Again: ") != password:
        raise InvalidRequest("the two passwords are not the same")
    return password


def _some_text(what: str, text: str) -> str:
    if not text:
        raise InvalidRequest(f"the {what} is empty")
    return _text(what, text)


def _text(what: str, text: str) -> str:
    """*text*, if all of it could be read: no server understands the rest."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"the {what} is not in the terminal's encoding, {sys.stdin.encoding}") from None
    return text


def _needs_terminal(what: str, option: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError(f"there is no terminal to ask for a {what}: use {option}")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Prints columns for people and for ``cut`` alike; what others sent is shown without control characters."""
    clean = [tuple("".join(c if c.isprintable() else "?" for c in cell) for cell in row) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in clean) for column in range(len(head))]
    for row in clean:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
