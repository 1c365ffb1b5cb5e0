"""What ``unbroken serve`` logs, as lines for people or as JSON lines for machines. No line holds a secret.

    {"at": "2026-05-01T12:00:00.123Z", "level": "warning", "logger": "unbroken.events", "message": "…", "event": "…"}

A request's line has no query: what an application's clients write there is not known here.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

__all__ = ["JsonLines", "TextLines", "WithoutQuery", "log_config"]

# What every record has; all else is what somebody wanted to be told (``extra``).
KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line, with the fields of ``extra`` in it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in KNOWN and name not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=True)


class TextLines(logging.Formatter):
    """Time, level, message; the fields of an event after it."""

    def format(self, record: logging.LogRecord) -> str:
        extra = {
            name: value for name, value in vars(record).items() if name not in KNOWN and name not in ("event", "sid")
        }
        fields = "".join(f" {name}={value!r}" for name, value in extra.items() if value not in ("", None))
        # Whatever a client wrote is one line, and cannot look like another.
        message = "".join(char if char.isprintable() else "?" for char in record.getMessage() + fields)
        line = f"{_time(record)} {record.levelname.lower()} {message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class WithoutQuery(logging.Filter):
    """Turns uvicorn's record of a request into one with fields, and without the query."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and len(record.args) == 5:  # what uvicorn.access says
            client, method, path, _, status = record.args
            bare = str(path).partition("?")[0]
            record.msg, record.args = "%s %s %s", (method, bare, status)
            record.client, record.method, record.path, record.status = client, method, bare, status
        return True


def log_config(log_format: str, level: str, *, access_log: bool) -> dict[str, Any]:
    """The configuration for ``logging.config.dictConfig``, in every process of the server."""
    form = JsonLines if log_format == "json" else TextLines
    ours = {"handlers": ["stderr"], "level": level.upper(), "propagate": False}
    theirs = {**ours, "level": "DEBUG" if level == "debug" else "WARNING" if level != "error" else "ERROR"}
    access = {**ours, "level": "INFO" if access_log else "CRITICAL"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": f"{form.__module__}.{form.__qualname__}"}},
        "filters": {"without query": {"()": f"{__name__}.WithoutQuery"}},
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "lines", "stream": "ext://sys.stderr"},
            "access": {
                "class": "logging.StreamHandler",
                "formatter": "lines",
                "filters": ["without query"],
                "stream": "ext://sys.stderr",
            },
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"unbroken": ours, "uvicorn": theirs, "uvicorn.access": {**access, "handlers": ["access"]}},
    }


def _time(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return at.replace("+00:00", "Z")
