"""All settings in one table for each subject, with their names in Python, in Django and in ``unbroken serve``.

A meaning is the help of the setting of ``unbroken serve``; where it has none, the comment at the field, or the sentence
of the class's docstring that names it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from scripts.reference.markdown import NOTE, cell, code, prose, sentences, table
from scripts.reference.signatures import default_of
from unbroken import Leeway, RefreshWindow, Session
from unbroken.cli.options import environment_variable
from unbroken.cli.parsers import format_duration
from unbroken.cli.settings import Setting, setting_definitions
from unbroken.django import conf
from unbroken.server import Cookies, Policy, ProofPolicy, RateLimitPolicy, Sessions
from unbroken.server.http.settings import EndpointSettings

__all__ = ["page"]

INTRODUCTION = """One row is one setting, whatever the server is built with. Times are in seconds in Python (or a
`timedelta`), and durations such as `30m` for `unbroken serve`.

- **Python**: the parameter of the class that is named above the table.
- **Django**: the name in the dict `UNBROKEN`. Where a row has none, give the object: `"COOKIES": Cookies(...)`.
- **`unbroken serve`**: the option. `--access-ttl` is also `UNBROKEN_ACCESS_TTL` in the environment, and `access_ttl` in
  `unbroken.toml`; where a second name has a dot, what stands before it is a table
  of that file."""


NO_PREFIX = "-"  # no setting of ``unbroken serve`` begins so


class Group(NamedTuple):
    """A class with settings. *prefix* begins their names in ``unbroken serve``, *renamed* has those that differ."""

    title: str
    made_by: str
    type: type
    prefix: str = ""
    renamed: dict[str, str] = {}  # noqa: RUF012  # a named tuple's default, which nothing changes


GROUPS = (
    Group("Lifetimes", "Policy(...)", Policy),
    Group("Sessions", "Sessions(store, ...)", Sessions),
    Group(
        "Endpoints",
        "routes(sessions, authenticate, ...), Auth(sessions, authenticate, ...), Endpoints(...)",
        EndpointSettings,
        renamed={"scopes_of": "default_scope", "rate_limit": "rate_limit_enabled", "cookies": "cookies_mode"},
    ),
    Group("Cookies", "Cookies(...)", Cookies, "cookies_"),
    Group("The rate limit of logins", "RateLimitPolicy(...)", RateLimitPolicy, "rate_limit_"),
    Group(
        "Sessions bound to a key", "ProofPolicy(...)", ProofPolicy, "proofs_", {"clients": "proofs_required_clients"}
    ),
)
CLIENT_GROUPS = (
    Group("A session", "Session(dialect, store, ...)", Session, NO_PREFIX),
    Group("When a token is refreshed", "Leeway(...)", Leeway, NO_PREFIX),
    Group("The limit of refreshes", "RefreshWindow(...)", RefreshWindow, NO_PREFIX),
)


def page() -> str:
    """Return the page: the settings of the server by subject, then those of the client."""
    parts = ["# Settings: all of every face", NOTE, INTRODUCTION, "## The server"]
    used: set[str] = set()
    for group in GROUPS:
        rows = list(_rows(group, used))
        head = ("Python", "default", "Django", "`unbroken serve`", "meaning")
        parts += [f"### {group.title}", f"In Python: `{group.made_by}`.", table(head, rows)]
    parts += ["### Only in Django", table(("Django", "meaning"), _django_rows())]
    parts += ["### Only in unbroken serve", table(("option", "default", "meaning"), _serve_rows(used))]
    parts += ["## The client"]
    for group in CLIENT_GROUPS:
        rows = [row[:2] + row[4:] for row in _rows(group, used)]
        parts += [f"### {group.title}", f"`{group.made_by}`.", table(("Python", "default", "meaning"), rows)]
    parts.append("The options of the browser module are in [its reference](browser.md#options).")
    return "\n\n".join(parts) + "\n"


def _rows(group: Group, used: set[str]) -> Iterator[tuple[str, ...]]:
    for name, parameter in inspect.signature(group.type).parameters.items():
        setting = setting_definitions().get(group.renamed.get(name, group.prefix + name))
        used |= {setting.name} if setting else set()
        has_default = parameter.default is not inspect.Parameter.empty
        yield (
            code(name),
            code(default_of(parameter.default)) if has_default else "needed",
            code(_django_name(name)) if not group.prefix else "",
            _serve_name(setting),
            cell(_meaning(group.type, name, setting)),
        )


def _django_name(name: str) -> str:
    known = {*conf.OWN, *conf.POLICY, *conf.SESSIONS, *conf.ENDPOINTS}
    return name.upper() if name.upper() in known else ""


def _serve_name(setting: Setting | None) -> str:
    if setting is None:
        return ""
    if "option" not in setting.sources:
        return code(environment_variable(setting.name) if "environment" in setting.sources else setting.key)
    return code(setting.option) + (f" {code(setting.key)}" if "." in setting.key else "")


def _meaning(owner: type, name: str, setting: Setting | None) -> str:
    if setting is not None and not (owner is EndpointSettings and name in ("scopes_of", "cookies", "rate_limit")):
        return setting.help
    return _comment(owner, name) or _sentence(owner, name)


def _comment(owner: type, name: str) -> str:
    found = re.search(rf"^    {name}: .*?  # (.*)$", inspect.getsource(owner), re.MULTILINE)
    return prose(found[1]) if found else ""


def _sentence(owner: type, name: str) -> str:
    marked = re.compile(rf"\*{name}\*|`{name}\b")
    found = next((one for one in sentences(owner.__doc__) if marked.search(one)), "")
    return re.sub(rf"^\*{name}\*:? ?", "", found)


def _django_rows() -> list[tuple[str, str]]:
    """Return the settings of Django's own, with what the docstring of its module says."""
    rows = re.findall(r"^    ([A-Z_, ]+?) {2,}(\S.*(?:\n {18,}\S.*)*)", conf.__doc__ or "", re.MULTILINE)
    own = [(names, text) for names, text in rows if names.split(",")[0] in conf.OWN]
    return [(", ".join(code(name) for name in names.split(", ")), cell(prose(text))) for names, text in own]


def _serve_rows(used: set[str]) -> list[tuple[str, str, str]]:
    left = [one for one in setting_definitions().values() if one.name not in used]
    return [(_serve_name(one), code(_serve_default(one)), cell(one.help)) for one in left]


def _serve_default(one: Setting) -> Any:
    if isinstance(one.default, bool):
        return "on" if one.default else "off"
    return format_duration(one.default) if isinstance(one.default, float) else one.default or ""
