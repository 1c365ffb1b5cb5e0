"""The log lines of ``unbroken serve``: one line each, with the fields of events, and without the query of a request."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from unbroken.cli.logs import JsonFormatter, QueryRemover, TextFormatter


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("unbroken.events", logging.WARNING, __file__, 1, message, args, None)
    made.__dict__ |= extra
    return made


def test_a_json_line_has_the_fields_of_the_event() -> None:
    line = json.loads(
        JsonFormatter().format(record("reuse of %s", "a token", event="session.reuse_detected", ip="::1"))
    )
    at = line.pop("at")
    assert at.endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "unbroken.events",
        "message": "reuse of a token",
        "event": "session.reuse_detected",
        "ip": "::1",
    }


def test_a_field_cannot_replace_the_message() -> None:
    line = json.loads(JsonFormatter().format(record("true", level="debug", at="never")))
    assert (line["level"], line["message"], line["at"] == "never") == ("warning", "true", False)


def test_tracebacks_and_stacks_stay_in_the_json_line() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        failed = record("it failed")
        failed.exc_info, failed.stack_info = sys.exc_info(), "Stack (most recent call last):"
    text = JsonFormatter().format(failed)
    assert "\n" not in text
    assert "ValueError: why" in json.loads(text)["exception"]
    assert json.loads(text)["stack"].startswith("Stack")


@pytest.mark.parametrize("break_", ["\n", "\r", "\x1b[2J", "\u2028"], ids=["newline", "return", "escape", "separator"])
def test_a_text_of_a_client_cannot_begin_a_line_of_its_own(break_: str) -> None:
    line = TextFormatter().format(record("login of %s", f"ada{break_}2026-01-01 info all is well", reason="x", sid="s"))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    assert line.endswith(" reason='x'")


def test_the_line_of_a_request_has_no_query() -> None:
    access = logging.LogRecord(
        "uvicorn.access",
        logging.INFO,
        __file__,
        1,
        '%s - "%s %s HTTP/%s" %d',
        ("127.0.0.1:5", "GET", "/auth/session?access_token=secret", "1.1", 200),
        None,
    )
    assert QueryRemover().filter(access)
    line = JsonFormatter().format(access)
    assert json.loads(line)["message"] == "GET /auth/session 200"
    assert json.loads(line)["path"] == "/auth/session"
    assert "secret" not in line
