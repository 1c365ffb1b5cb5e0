"""``unbroken login``: a session by password, or by a refresh token that somebody else has.

1. Nothing here is changed before the server has said yes: the login happens in memory, and is then put into the folder.
2. Secrets are asked for, or come by standard input: one a line, first the client secret, then the password or token.
   On a command line other users could read them, so they are refused there, and not repeated in the error.
3. A login by password under a name that is in use ends the session that was there, also at the server.
4. Tokens whose profile is gone belong to nobody knows which server: they are deleted, and sent to none.
"""

from __future__ import annotations

import platform
import sys
from typing import Annotated
from urllib.parse import urlsplit

import typer

from unbroken._origins import origin_of
from unbroken.cli.client.profiles import Profile, checked_name, find, names, remove, save, store_of
from unbroken.cli.terminal import ask, ask_secret, say
from unbroken.client.session import Session
from unbroken.errors import ConfigurationError, InvalidRequest, SessionOver
from unbroken.tokens import Tokens

__all__ = ["login"]


def login(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="The server; with --token-endpoint, the API.")],
    name: Annotated[
        str, typer.Option("--as", envvar="UNBROKEN_AS", metavar="NAME", help="What the session is called from now on.")
    ],
    user: Annotated[str, typer.Option(envvar="UNBROKEN_USER", help="The user's name. (default: it is asked for)")] = "",
    password_stdin: Annotated[
        bool,
        typer.Option(
            "--password-stdin", envvar="UNBROKEN_PASSWORD_STDIN", help="Read the password from standard input."
        ),
    ] = False,
    paste: Annotated[
        bool, typer.Option("--paste", envvar="UNBROKEN_PASTE", help="Take over a refresh token instead of a password.")
    ] = False,
    code: Annotated[
        str, typer.Option(envvar="UNBROKEN_CODE", help="The code of a second step. (default: asked for, if wanted)")
    ] = "",
    scope: Annotated[str, typer.Option(envvar="UNBROKEN_SCOPE", help="The scope to ask for.")] = "",
    label: Annotated[
        str, typer.Option(envvar="UNBROKEN_LABEL", help="What the server calls the session. (default: this machine)")
    ] = "",
    prefix: Annotated[str, typer.Option(envvar="UNBROKEN_PREFIX", help="Where an unbroken server answers.")] = "/auth",
    token_endpoint: Annotated[
        str, typer.Option(envvar="UNBROKEN_TOKEN_ENDPOINT", metavar="URL", help="For any OAuth 2.0 server (RFC 6749).")
    ] = "",
    revocation_endpoint: Annotated[
        str, typer.Option(envvar="UNBROKEN_REVOCATION_ENDPOINT", metavar="URL", help="Where it logs out (RFC 7009).")
    ] = "",
    client_id: Annotated[str, typer.Option(envvar="UNBROKEN_CLIENT_ID", help="This client, as it knows it.")] = "",
    client_secret_stdin: Annotated[
        bool,
        typer.Option(
            "--client-secret-stdin",
            envvar="UNBROKEN_CLIENT_SECRET_STDIN",
            help="Read the client secret from standard input, before all else.",
        ),
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(envvar="UNBROKEN_ORIGIN", metavar="URL", help="Tokens may go there too. May be repeated."),
    ] = None,
    allow_plain_http: Annotated[
        bool,
        typer.Option("--allow-plain-http", envvar="UNBROKEN_ALLOW_PLAIN_HTTP", help="Send tokens in the clear."),
    ] = False,
) -> None:
    """Log in, and keep the session under a name."""
    if context.args:
        raise ConfigurationError(
            "login takes one URL and no secrets: others can read command lines; use --password-stdin or --paste"
        )
    if not token_endpoint and (revocation_endpoint or client_id or client_secret_stdin):
        raise ConfigurationError("these options of OAuth 2.0 servers need --token-endpoint")
    _check_addresses(url, *(origin or ()), query=False)
    _check_addresses(*filter(None, (token_endpoint, revocation_endpoint)), query=True)
    url, prefix = url.rstrip("/"), f"/{prefix.strip('/')}".rstrip("/")
    if prefix and not token_endpoint:
        url = url.removesuffix(prefix)  # the address of the endpoints, as `unbroken serve` prints it, will do as well
    profile = Profile(
        name=checked_name(name),
        url=url,
        kind="oauth2" if token_endpoint else "unbroken",
        prefix=prefix,
        token_endpoint=token_endpoint,
        revocation_endpoint=revocation_endpoint,
        client_id=client_id,
        client_secret=ask_secret("client secret", from_stdin=True, option="") if client_secret_stdin else "",
        origins=tuple(origin or ()),
        plain_http=allow_plain_http,
    )
    _check_same_server(profile)
    if paste:
        fresh = _taken_over(profile.session())
    else:
        about = {"label": label or platform.node()} if profile.kind == "unbroken" else {}
        fresh = _by_password(profile.session(), user, password_stdin, code, about | ({"scope": scope} if scope else {}))
    _keep(profile, fresh, end_old=not paste)
    say(f"logged in at {url}; the session is called {name}")


def _by_password(session: Session, user: str, from_stdin: bool, code: str, about: dict[str, str]) -> Tokens:
    user = user or ask("user", "--user")
    if not all(text.isprintable() for text in (user, *about.values())):
        raise InvalidRequest("the user, the scope and the label are printable texts")
    password = ask_secret("password", from_stdin=from_stdin, option="--password-stdin")

    def second_step(kind: str, hint: str) -> str:
        return code or ask(f"code ({hint or kind})" if hint or kind else "code", "--code")

    return session.login(user, password, mfa_prompt=second_step, **about)


def _taken_over(session: Session) -> Tokens:
    """The tokens that the server gives for a refresh token from elsewhere."""
    refresh_token = ask_secret("refresh token", from_stdin=True, option="").strip()
    if not (refresh_token.isascii() and refresh_token.isprintable()):
        raise InvalidRequest("this is no refresh token: it has characters that no token has")
    # It comes without an access token, so the first one counts as challenged.
    session.import_tokens(Tokens(access_token="none", refresh_token=refresh_token))
    try:
        session._handle_challenge(session._authorize(), "login")
    except SessionOver as over:
        raise InvalidRequest(f"the server did not take the refresh token ({over.reason})") from over
    return session._authorize().tokens


def _keep(profile: Profile, fresh: Tokens, *, end_old: bool) -> None:
    """Puts the login into the folder. A pasted token may be of the very session that was there: that one lives on."""
    if profile.name not in names():
        remove(profile.name)
    save(profile)
    store = store_of(profile.name)
    before = store.load().tokens
    profile.session(store).import_tokens(fresh)
    if before and end_old:
        old = profile.session()
        old.import_tokens(before)
        if not old.logout():
            print("unbroken: the session of before was replaced, but may live on at the server", file=sys.stderr)


def _check_same_server(profile: Profile) -> None:
    if profile.name in names() and find(profile.name).server != profile.server:
        raise InvalidRequest(
            f"{profile.name} is a session at {find(profile.name).url}: log it out first, or use another name"
        )


def _check_addresses(*urls: str, query: bool) -> None:
    """Raises InvalidRequest, which does not repeat what may be a secret. *query*: an endpoint may have one."""
    for url in urls:
        try:
            parts = urlsplit(url)
            if parts.username is not None or parts.fragment or (parts.query and not query):
                raise InvalidRequest("an address must not have a user, a password, a query or a fragment in it")
            origin_of(url)
        except (ValueError, ConfigurationError):
            raise InvalidRequest("an address is wrong: it has to begin with https:// and a host") from None
