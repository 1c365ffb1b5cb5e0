"""The log of ``unbroken serve``: lines for people, or one JSON object a line.

    {"at": "2026-05-01T12:00:00.123Z", "level": "warning", "logger": "unbroken.events", "message": "…", "event": "…"}

No line contains a secret. The line of a request leaves the query out: applications may put anything there.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

__all__ = ["JsonFormatter", "QueryRemover", "TextFormatter", "log_config"]

# The attributes that every record has; the others are the fields of ``extra``.
RECORD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, with the fields of ``extra`` in it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in _extra(record).items() if name not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, default=str, ensure_ascii=True)


class TextFormatter(logging.Formatter):
    """Formats a record as time, level, message, and the fields of an event."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in _extra(record).items() if name not in ("event", "sid")}
        text = record.getMessage() + "".join(
            f" {name}={value!r}" for name, value in fields.items() if value not in ("", None)
        )
        # A text from a client must stay in one line, and must not look like another line.
        text = "".join(char if char.isprintable() else "?" for char in text)
        line = f"{_timestamp(record)} {record.levelname.lower()} {text}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class QueryRemover(logging.Filter):
    """Turns uvicorn's record of a request into one with fields, and removes the query."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and len(record.args) == 5:  # the arguments of uvicorn.access
            client, method, target, _, status = record.args
            path = str(target).partition("?")[0]
            record.msg, record.args = "%s %s %s", (method, path, status)
            record.client, record.method, record.path, record.status = client, method, path, status
        return True


def log_config(log_format: str, level: str, *, access_log: bool) -> dict[str, Any]:
    """Return the configuration for ``logging.config.dictConfig``, for every process of the server."""
    formatter = JsonFormatter if log_format == "json" else TextFormatter
    unbroken = {"handlers": ["stderr"], "level": level.upper(), "propagate": False}
    uvicorn = {**unbroken, "level": {"debug": "DEBUG", "error": "ERROR"}.get(level, "WARNING")}
    access = {**unbroken, "handlers": ["access"], "level": "INFO" if access_log else "CRITICAL"}
    stderr = {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": f"{__name__}.{formatter.__qualname__}"}},
        "filters": {"without query": {"()": f"{__name__}.{QueryRemover.__qualname__}"}},
        "handlers": {"stderr": stderr, "access": {**stderr, "filters": ["without query"]}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"unbroken": unbroken, "uvicorn": uvicorn, "uvicorn.access": access},
    }


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in RECORD_ATTRIBUTES}


def _timestamp(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return at.replace("+00:00", "Z")
