"""Questions that commands ask at a terminal, and the lines and tables they print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from getpass import getpass

from unbroken.errors import ConfigurationError, InvalidRequest

__all__ = ["ask", "ask_new_password", "ask_secret", "confirm", "print_table", "say"]


def say(text: str) -> None:
    """Print *text* and the end of the line in one write, so that commands that share a pipe write whole lines."""
    sys.stdout.write(f"{text}\n")


def ask(label: str, option: str) -> str:
    """Ask for a line of text that is no secret. Raise ConfigurationError without a terminal: it names *option*.

    Raise InvalidRequest for an empty line, and EOFError at the end of the input.
    """
    _require_terminal(label, option)
    return _require_text(label, _read_line(f"{label.capitalize()}: ").strip())


def confirm(question: str) -> bool:
    """Ask a yes-or-no question; return False without a terminal. Raise EOFError at the end of the input."""
    return sys.stdin.isatty() and _read_line(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def ask_secret(label: str, *, from_stdin: bool, option: str) -> str:
    """Ask for a secret without echo; *from_stdin*: without a terminal, read one line of standard input.

    Raise ConfigurationError, which names *option*, if there is neither, and InvalidRequest for an empty secret.
    """
    if not from_stdin:
        _require_terminal(label, option)
    secret = getpass(f"{label.capitalize()}: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    return _require_text(label, secret)


def ask_new_password(*, from_stdin: bool) -> str:
    """Ask twice for a new password; *from_stdin*: read one line of standard input."""
    if from_stdin:
        return _decodable("password", sys.stdin.readline().rstrip("\r\n"))
    _require_terminal("password", "--password-stdin")
    password = getpass("Password: ")
    if getpass("Again: ") != password:
        raise InvalidRequest("the two passwords differ")
    return password


def _read_line(prompt: str) -> str:
    print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        print(file=sys.stderr)
        raise EOFError
    return line


def _require_text(label: str, text: str) -> str:
    if not text:
        raise InvalidRequest(f"the {label} is empty")
    return _decodable(label, text)


def _decodable(label: str, text: str) -> str:
    """Return *text*. Raise InvalidRequest if it has bytes that are not in the terminal's encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"the {label} is not in the terminal's encoding, {sys.stdin.encoding}") from None
    return text


def _require_terminal(label: str, option: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigurationError(f"there is no terminal to ask for a {label}: use {option}")


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print aligned columns. Control characters are replaced: clients choose some of the texts."""
    clean = [tuple("".join(c if c.isprintable() else "?" for c in cell) for cell in row) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in clean) for column in range(len(head))]
    for row in clean:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
