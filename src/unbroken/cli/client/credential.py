"""``unbroken credential``: tokens for programs that ask a helper for a password, each in its own language.

    git      credential.helper = !unbroken credential git NAME
    docker   a program ``docker-credential-NAME``:  exec unbroken credential docker NAME "$@"
    kubectl  users[].user.exec:  command: unbroken  args: [credential, kubectl, NAME]

1. Who asks for another address than an origin of the session gets nothing.
2. What such a program wants to have stored or erased is read and forgotten: the session keeps its own tokens.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from unbroken._origins import origin_of
from unbroken.cli.client.profiles import Name, using
from unbroken.cli.terminal import say
from unbroken.client.session import Session
from unbroken.errors import ConfigurationError, InvalidRequest, UnbrokenError
from unbroken.tokens import Tokens, value_at

__all__ = ["credential"]

credential = typer.Typer(no_args_is_help=True, help="Answer git, docker and kubectl, which ask helpers for passwords.")

Action = Annotated[str, typer.Argument(metavar="ACTION", help="What to do: get, or store or erase, which do nothing.")]
Username = Annotated[
    str, typer.Option(envvar="UNBROKEN_USERNAME", help="The user's name to answer; the password is the token.")
]


# ---- git ---------------------------------------------------------------------------------------------------------


@credential.command("git")
def git(name: Name, action: Action, username: Username = "oauth2") -> None:
    """Answer `git credential`, if the host it asks for is an origin of the session."""
    asked = dict(line.rstrip("\r\n").partition("=")[::2] for line in sys.stdin if "=" in line)
    if action != "get":
        return  # git wants unknown actions to be ignored, too
    with using(name) as (_, session):
        if not _covers(session, f"{asked.get('protocol', '')}://{asked.get('host', '')}"):
            return
        tokens = session._authorize(fresh=True).tokens
    ends = "" if tokens.expires_at is None else f"\npassword_expiry_utc={int(tokens.expires_at)}"
    say(f"username={asked.get('username') or username}\npassword={tokens.access_token}{ends}")


# ---- docker ------------------------------------------------------------------------------------------------------

# Docker's own words, which its client compares. It reads errors, too, from standard output.
NO_CREDENTIALS = "credentials not found in native keychain"
NO_SERVER = "no credentials server URL"


@credential.command("docker")
def docker(name: Name, action: Action, username: Username = "oauth2") -> int:
    """Answer docker, if the registry it asks for is an origin of the session. `list` is known as well."""
    given = sys.stdin.read().strip() if action in ("get", "store", "erase") else ""
    match action:
        case "store" | "erase":
            return 0
        case "get" | "list":
            try:
                return _registry(name, given, username) if action == "get" else _registries(name, username)
            except UnbrokenError as error:
                say(str(error))
                raise
        case _:
            raise InvalidRequest("docker's actions are get, store, erase and list")


def _registry(name: str, server: str, username: str) -> int:
    if not server:
        say(NO_SERVER)
        return 1
    with using(name) as (_, session):
        if not any(_covers(session, url) for url in _addresses(server)):
            say(NO_CREDENTIALS)
            return 1
        secret = session._authorize(fresh=True).tokens.access_token
    say(json.dumps({"ServerURL": server, "Username": username, "Secret": secret}))
    return 0


def _registries(name: str, username: str) -> int:
    with using(name) as (_, session):
        say(json.dumps({f"{scheme}://{host}:{port}": username for scheme, host, port in sorted(session.origins)}))
    return 0


def _addresses(server: str) -> list[str]:
    """Docker leaves the scheme out for most registries; http can match only what http was allowed for."""
    return [server] if "://" in server else [f"https://{server}", f"http://{server}"]


# ---- kubectl -----------------------------------------------------------------------------------------------------

API = "client.authentication.k8s.io/"


@credential.command("kubectl")
def kubectl(name: Name) -> None:
    """Answer kubectl with an ExecCredential; to other clusters than the session's, if it tells which it asks for."""
    version, server = _asked_by_kubectl()
    with using(name) as (_, session):
        if server and not _covers(session, server):
            raise ConfigurationError(f"this cluster is none of the origins of {name}: log in with --origin for it")
        tokens = session._authorize(fresh=True).tokens
    status = {"token": tokens.access_token, **_expiry(tokens)}
    say(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))


def _asked_by_kubectl() -> tuple[str, str]:
    """The version of the answer, and the cluster's address, if kubectl was set to provide it."""
    try:
        asked = json.loads(os.environ.get("KUBERNETES_EXEC_INFO") or "{}")
    except ValueError as error:
        raise InvalidRequest("KUBERNETES_EXEC_INFO is no JSON") from error
    version = API + "v1beta1" if value_at(asked, "apiVersion") == API + "v1beta1" else API + "v1"
    return version, str(value_at(asked, "spec.cluster.server") or "")


def _expiry(tokens: Tokens) -> dict[str, str]:
    if tokens.expires_at is None:
        return {}
    return {"expirationTimestamp": datetime.fromtimestamp(int(tokens.expires_at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


# ---- all of them -------------------------------------------------------------------------------------------------


def _covers(session: Session, url: str) -> bool:
    """Whether the session's tokens may go to *url*, which anybody may have written."""
    try:
        scheme, host, port = origin_of(url)
    except (ValueError, ConfigurationError):
        return False
    return session.allows_origin(scheme, host, port)
