"""Every error code and every reason, of Python, of the server's responses, and of the browser module.

The reasons of responses are read from the source: each place that makes an error with a ``reason`` has the words that
a client gets.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import unbroken
from scripts.reference.markdown import NOTE, cell, code, prose, table
from unbroken import errors
from unbroken.errors import SESSION_OVER_MESSAGES, Refused, TooManyAttempts, UnbrokenError
from unbroken.server.grants.refresh_grant import WHY_REFUSED
from unbroken.server.http.cookies import ambiguous_cookies
from unbroken.server.http.messages import STATUS, Forbidden, InsufficientScope
from unbroken.server.keys.proof_token import MESSAGES

__all__ = ["page"]

SERVER = Path(unbroken.__file__).parent / "server"
INTRODUCTION = """Programs compare a `code` or an `error`, and a `reason`; the words are for people and may change. An
error of an HTTP response is `{"error": …, "error_description": …, "reason": …}` (RFC 6749 §5.2), `reason` only where
there is more to say. [Troubleshooting](../troubleshooting.md) goes from symptoms to causes."""


class Reason(NamedTuple):
    """One reason of an error in a response."""

    error: str
    reason: str
    words: str


def page() -> str:
    """Return the page: what Python raises, why a session is over, what the server responds."""
    _check_all_reasons_are_known()
    parts = ["# Errors: every code and reason", NOTE, INTRODUCTION, "## Python", _python_table()]
    parts += ["## Why a session is over", "`SessionOver.reason` in Python, `error.reason` in the browser."]
    parts += [table(("reason", "meaning"), [(code(one), cell(words)) for one, words in SESSION_OVER_MESSAGES.items()])]
    parts += ["## HTTP", HTTP, table(("status", "`error`", "meaning"), _http_rows())]
    parts += ["### Reasons", table(("`error`", "`reason`", "words of the response"), _reason_rows())]
    parts += ["## The browser module", "Its codes are in [its reference](browser.md#errorcode)."]
    return "\n\n".join(parts) + "\n"


HTTP = "A 401 and a 403 that are about the token have the same words in the header `WWW-Authenticate` (RFC 6750 §3)."


UNAVAILABLE = (
    "The store does not respond, or the server is set up wrongly and its log says how. Nothing is lost: try again "
    "after `Retry-After`."
)


def _errors() -> Iterator[type[UnbrokenError]]:
    for name in errors.__all__:
        yield getattr(errors, name)


def _python_table() -> str:
    rows = [
        (
            code(one.code) if one.code != UnbrokenError.code else "",
            code(one.__name__),
            code(one.__mro__[1].__name__),
            cell(prose(one.__doc__)),
        )
        for one in _errors()
    ]
    return table(("code", "class", "is a", "meaning"), rows)


def _http_rows() -> Iterator[tuple[str, str, str]]:
    for kind in sorted(STATUS, key=lambda one: (STATUS[one], one.code)):
        yield str(STATUS[kind]), code(kind.code), cell(prose(kind.__doc__).split("\n\n")[0])
    yield "400, 401", code("invalid_dpop_proof"), cell(prose(errors.InvalidProof.__doc__).split("\n\n")[0])
    yield "400, 401", code("use_dpop_nonce"), cell(prose(errors.NonceRequired.__doc__))
    yield "400", code("unsupported_grant_type"), "`/auth/token` has not this grant (RFC 6749 §5.2)."
    yield "401", code("unauthorized"), "The request has no access token: send one."
    yield "403", code("mfa_required"), "The password is right: send the code to `/auth/login/step`."
    yield "403", code(InsufficientScope.code), cell(prose(InsufficientScope.__doc__))
    yield "404", code("not_found"), "There is no such session of this caller."
    yield "405", code("method_not_allowed"), "The header `Allow` names the methods of this path."
    yield "413", code("invalid_request"), "The body is longer than 64 KiB."
    yield "429", code(TooManyAttempts.code), cell(prose(TooManyAttempts.__doc__) + " Wait for `Retry-After`.")
    yield (
        "503",
        code("temporarily_unavailable"),
        UNAVAILABLE,
    )


def _reason_rows() -> list[tuple[str, str, str]]:
    found = {*_reasons_in_source()}
    found |= {Reason("invalid_grant", one, words) for one, words in WHY_REFUSED.items()}
    found.add(Reason("invalid_grant", "revoked", "the session was revoked"))
    found.add(Reason("invalid_request", "ambiguous_cookies", str(ambiguous_cookies())))
    found |= {Reason("invalid_dpop_proof", one, words) for one, words in MESSAGES.items()}
    return [(code(one.error), code(one.reason), cell(one.words)) for one in sorted(found)]


KINDS = {kind.__name__: kind for kind in (*_errors(), Forbidden) if issubclass(kind, Refused)}


def _reasons_in_source() -> Iterator[Reason]:
    for path in sorted(SERVER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                reason = next((word.value for word in node.keywords if word.arg == "reason"), None)
                if isinstance(reason, ast.Constant) and node.args and (words := _words(node.args[0])):
                    yield Reason(KINDS[node.func.id].code, str(reason.value), words)


def _words(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""  # a variable: ``_reason_rows`` adds what it stands for


def _check_all_reasons_are_known() -> None:
    """Raise ValueError if the docstring of an error names a reason that no row would have."""
    rows = {(error.strip("`"), reason.strip("`")) for error, reason, _ in _reason_rows()}
    for kind in (errors.InvalidGrant, errors.InvalidToken, errors.InvalidProof, Forbidden):
        named = re.search(r"``reason``:(.*?)(?:``scheme``|``at_resource``|$)", inspect.getdoc(kind) or "", re.DOTALL)
        for reason in re.findall(r"``(\w+)``", named[1] if named else ""):
            if (kind.code, reason) not in rows:
                raise ValueError(f"no place in the source responds with {kind.code}, {reason}")
