"""``unbroken credential``: tokens for programs that ask a helper for credentials, each in its own protocol.

    git      credential.helper = !unbroken credential git NAME
    docker   a program ``docker-credential-NAME``:  exec unbroken credential docker NAME "$@"
    kubectl  users[].user.exec:  command: unbroken  args: [credential, kubectl, NAME]

1. A request for an address that is not an origin of the session gets no token.
2. The session keeps its own tokens: credentials to store or erase are read and ignored.
3. A session that is bound to a key gives these programs nothing: they send a token, and no proof (RFC 9449).
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime

import click

from unbroken._http import origin_of
from unbroken.cli.client.profiles import open_session, refuse_bound, session_name
from unbroken.cli.options import option
from unbroken.cli.terminal import say
from unbroken.client.session import Session
from unbroken.errors import ConfigurationError, InvalidRequest, UnbrokenError
from unbroken.tokens import Tokens, value_at

__all__ = ["credential"]

user_option = option(
    "--username", default="oauth2", show_default=True, help="User name to return; the password is the token."
)
action_argument = click.argument("action", metavar="ACTION")


@click.group()
def credential() -> None:
    """Give tokens to git, docker and kubectl."""


# ---- git ---------------------------------------------------------------------------------------------------------


@credential.command("git")
@session_name
@action_argument
@user_option
def git(name: str, action: str, username: str) -> None:
    """Return the token to `git credential`, if the host is an origin of the session.

    ACTION: get; git's other actions are ignored.
    """
    fields = dict(line.rstrip("\r\n").partition("=")[::2] for line in sys.stdin if "=" in line)
    if action != "get":
        return  # git's protocol: ignore unknown actions too
    with open_session(name) as (profile, session):
        refuse_bound(profile, "git")
        if not _allows(session, f"{fields.get('protocol', '')}://{fields.get('host', '')}"):
            return
        tokens = session._authorize(fresh=True).tokens
    expiry = "" if tokens.expires_at is None else f"\npassword_expiry_utc={int(tokens.expires_at)}"
    say(f"username={fields.get('username') or username}\npassword={tokens.access_token}{expiry}")


# ---- docker ------------------------------------------------------------------------------------------------------

# Docker compares these texts. It reads errors from standard output too.
NO_CREDENTIALS = "credentials not found in native keychain"
NO_SERVER = "no credentials server URL"


@credential.command("docker")
@session_name
@action_argument
@user_option
def docker(name: str, action: str, username: str) -> int:
    """Return the token to docker, if the registry is an origin of the session.

    ACTION: get or list; store and erase are ignored.
    """
    given = sys.stdin.read().strip() if action in ("get", "store", "erase") else ""
    match action:
        case "store" | "erase":
            return 0
        case "get" | "list":
            try:
                return _print_registry(name, given, username) if action == "get" else _print_registries(name, username)
            except UnbrokenError as error:
                say(str(error))
                raise
        case _:
            raise InvalidRequest("docker's actions are get, store, erase and list")


def _print_registry(name: str, server: str, username: str) -> int:
    if not server:
        say(NO_SERVER)
        return 1
    with open_session(name) as (profile, session):
        refuse_bound(profile, "docker")
        if not any(_allows(session, url) for url in _possible_urls(server)):
            say(NO_CREDENTIALS)
            return 1
        secret = session._authorize(fresh=True).tokens.access_token
    say(json.dumps({"ServerURL": server, "Username": username, "Secret": secret}))
    return 0


def _print_registries(name: str, username: str) -> int:
    with open_session(name) as (_, session):
        say(json.dumps({f"{scheme}://{host}:{port}": username for scheme, host, port in sorted(session.origins)}))
    return 0


def _possible_urls(server: str) -> list[str]:
    """Return the URLs that *server* may mean: docker omits the scheme. Sessions seldom allow http."""
    return [server] if "://" in server else [f"https://{server}", f"http://{server}"]


# ---- kubectl -----------------------------------------------------------------------------------------------------

API = "client.authentication.k8s.io/"


@credential.command("kubectl")
@session_name
def kubectl(name: str) -> None:
    """Return the token to kubectl as an ExecCredential.

    If kubectl names its cluster (provideClusterInfo), the cluster must be an origin of the session.
    """
    version, server = _kubectl_request()
    with open_session(name) as (profile, session):
        refuse_bound(profile, "kubectl")
        if server and not _allows(session, server):
            raise ConfigurationError(f"this cluster is not an origin of {name}: log in with --origin for it")
        tokens = session._authorize(fresh=True).tokens
    status = {"token": tokens.access_token, **_expiration(tokens)}
    say(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))


def _kubectl_request() -> tuple[str, str]:
    """Return the API version for the response, and the URL of the cluster if kubectl provides it."""
    try:
        request = json.loads(os.environ.get("KUBERNETES_EXEC_INFO") or "{}")
    except ValueError as error:
        raise InvalidRequest("KUBERNETES_EXEC_INFO is not JSON") from error
    version = API + "v1beta1" if value_at(request, "apiVersion") == API + "v1beta1" else API + "v1"
    return version, str(value_at(request, "spec.cluster.server") or "")


def _expiration(tokens: Tokens) -> dict[str, str]:
    if tokens.expires_at is None:
        return {}
    return {"expirationTimestamp": datetime.fromtimestamp(int(tokens.expires_at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


# ---- all of them -------------------------------------------------------------------------------------------------


def _allows(session: Session, url: str) -> bool:
    """Return whether the tokens may be sent to *url*, which another program wrote (rule 1)."""
    try:
        scheme, host, port = origin_of(url)
    except (ValueError, ConfigurationError):
        return False
    return session.allows_origin(scheme, host, port)
