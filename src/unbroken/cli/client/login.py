"""``unbroken login``: a session by password, with a browser or a code, or by a refresh token from another program.

1. Nothing in the folder changes before the server has accepted the login: it happens in memory, and is then stored.
   So the folder is checked first: a login that cannot be stored would stay alive at the server.
2. Secrets are asked for, or come from standard input, one a line: the client secret, then the password or the refresh
   token, then the MFA code. Other users can read command lines, so a secret there is refused, and not repeated.
3. A login by password revokes the session that had the name. If that was another user's session, it asks first. A
   login with a browser or a code asks when it knows who has logged in, and revokes nothing: at some servers that would
   end the new session too, because they revoke all that a user has granted to a client.
4. Tokens without a profile are deleted: which server they belong to is unknown, so they are sent to none.
5. With --dpop the session is bound to a key. A server that does not bind it is refused, and the login ends there too.
"""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import click

from unbroken import _base64
from unbroken._http import HttpRequest, NotSent, ResponseLost, origin_of
from unbroken._transport import http_sender
from unbroken.cli.options import option
from unbroken.cli.terminal import ask, ask_secret, confirm, say
from unbroken.client.core.login_endpoints import LOOPBACK_REDIRECT, check_redirect_uri
from unbroken.client.core.metadata import AuthorizationServer
from unbroken.client.core.proof import PROOF_ALGORITHMS
from unbroken.client.discovery import oauth2
from unbroken.client.profile_keys import find_proof_key, keep_proof_key, key_for_login
from unbroken.client.profile_session import ProfileSession
from unbroken.client.profiles import (
    DEFAULT_PREFIX,
    KEY_PLACES,
    STORES,
    Profile,
    delete_profile,
    delete_proof_key,
    find_profile,
    prepare_folder,
    profile_names,
    save_profile,
    token_store,
    valid_name,
)
from unbroken.client.proof_key import ProofKey
from unbroken.client.session import Session
from unbroken.errors import BadResponse, ConfigurationError, InvalidRequest, SessionOver, TryLater
from unbroken.tokens import Tokens, value_at

__all__ = ["login"]

PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LoginOptions:
    """The options of the command. A login is by password unless *paste*, *web* or *device* is given."""

    url: str
    name: str
    user: str
    password_stdin: bool
    code_stdin: bool
    paste: bool
    web: bool
    device: bool
    issuer: str
    redirect_uri: str
    scope: str
    label: str
    prefix: str
    token_endpoint: str
    revocation_endpoint: str
    client_id: str
    client_secret_stdin: bool
    origins: tuple[str, ...]
    keep: str | None
    dpop: bool
    dpop_key: str | None
    dpop_alg: str | None
    allow_plain_http: bool
    may_replace: bool

    @property
    def login_by(self) -> str:
        """``web``, ``device``, or an empty text for a login by password or refresh token."""
        return "web" if self.web else "device" if self.device else ""

    @property
    def is_oauth2(self) -> bool:
        """Whether the server is any OAuth 2.0 server, and not unbroken's own."""
        return bool(self.token_endpoint or self.login_by)

    def check(self) -> None:
        """Raise ConfigurationError for options that do not go together, InvalidRequest for a wrong URL."""
        login_by, is_other_login = self.login_by, self.paste or self.password_stdin or bool(self.user)
        if (self.web and self.device) or (login_by and is_other_login):
            raise ConfigurationError("a login is one of --web, --device, --paste, and a user with a password")
        if login_by and self.token_endpoint:
            raise ConfigurationError(
                f"--{login_by} asks the server for its endpoints: use --issuer, not --token-endpoint"
            )
        if not self.is_oauth2 and (self.revocation_endpoint or self.client_id or self.client_secret_stdin):
            raise ConfigurationError("the options of OAuth 2.0 servers need --token-endpoint, --web or --device")
        if (self.issuer or self.redirect_uri) and not login_by:
            raise ConfigurationError("--issuer and --redirect-uri need --web or --device")
        if not self.dpop and (self.dpop_key or self.dpop_alg):
            raise ConfigurationError("--dpop-key and --dpop-alg need --dpop")
        if self.dpop and self.paste:
            raise ConfigurationError(
                "--dpop binds a login: a refresh token from elsewhere is bound to another key, or to none"
            )
        _check_url(self.url, "URL")
        for origin in self.origins:
            _check_url(origin, "--origin")
        _check_url(self.token_endpoint, "--token-endpoint", query=True)
        _check_url(self.revocation_endpoint, "--revocation-endpoint", query=True)

    def profile(self) -> Profile:
        """Return the profile to store, without what the server says about itself."""
        prefix = f"/{self.prefix.strip('/')}".rstrip("/")
        return Profile(
            name=valid_name(self.name),
            url=self.url.rstrip("/") if self.is_oauth2 else _server_url(self.url, prefix),
            kind="oauth2" if self.is_oauth2 else "unbroken",
            prefix=prefix,
            token_endpoint=self.token_endpoint,
            revocation_endpoint=self.revocation_endpoint,
            client_id=self.client_id,
            origins=self.origins,
            plain_http=self.allow_plain_http,
            pasted=self.paste,
            store=_store_kind(self.name, self.keep),
            login_by=self.login_by,
            redirect_uri=self.redirect_uri or LOOPBACK_REDIRECT,
            dpop=(self.dpop_key or "file") if self.dpop else "",
            dpop_alg=self.dpop_alg or "",
        )


# A second argument is refused by the command itself: it may be a password, and must not be repeated.
@click.command(context_settings={"allow_extra_args": True})
@click.argument("url", metavar="URL")
@option("--as", "name", required=True, metavar="NAME", help="Name of the session from now on.")
@option("--user", default="", metavar="NAME", help="User name.  [default: ask]")
@option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@option("--code-stdin", is_flag=True, help="Read the MFA code from standard input, after the password.")
@option("--paste", is_flag=True, help="Take over a refresh token instead of a password.")
@option("--web", is_flag=True, help="Log in with a browser, at any OAuth 2.0 server.")
@option("--device", is_flag=True, help="Log in with a code that is entered on another device (RFC 8628).")
@option("--issuer", default="", metavar="URL", help="Name of the OAuth 2.0 server.  [default: URL says it]")
@option(
    "--redirect-uri", default="", metavar="URL", help="What it has on record.  [default: http://127.0.0.1/callback]"
)
@option("--scope", default="", help="Scope to ask for.")
@option("--label", default="", help="Name of the session at the server.  [default: this machine]")
@option("--prefix", default=DEFAULT_PREFIX, show_default=True, help="Path of an unbroken server's endpoints.")
@option("--token-endpoint", default="", metavar="URL", help="Token endpoint of any OAuth 2.0 server (RFC 6749).")
@option("--revocation-endpoint", default="", metavar="URL", help="Its revocation endpoint (RFC 7009), for logout.")
@option("--client-id", default="", help="Its id for this client.")
@option("--client-secret-stdin", is_flag=True, help="Read the client secret from standard input, before the password.")
@option(
    "--origin", "origins", multiple=True, metavar="URL", help="Another origin that may get the tokens. May be repeated."
)
@option("--keep", type=click.Choice(STORES), help="Where the tokens are kept.  [default: file]")
@option(
    "--dpop", is_flag=True, help="Bind the session to a key of this machine (RFC 9449): copied tokens are worthless."
)
@option("--dpop-key", type=click.Choice(KEY_PLACES), help="Where the key is kept.  [default: file]")
@option("--dpop-alg", type=click.Choice(PROOF_ALGORITHMS), help="What it signs with.  [default: what the server takes]")
@option("--allow-plain-http", is_flag=True, help="Allow tokens to be sent unencrypted.")
@option("--replace", "may_replace", is_flag=True, help="Replace another user's session without a question.")
@click.pass_context
def login(context: click.Context, /, **given: Any) -> None:
    """Log in and keep the session under a name.

    URL is the address of an unbroken server; with --web, --device or --token-endpoint, of the API.
    """
    _refuse_more_arguments(context)
    options = LoginOptions(**given)
    options.check()
    profile = options.profile()
    prepare_folder()  # rule 1
    if options.login_by:
        check_redirect_uri(profile.redirect_uri)
        profile = _with_endpoints(profile, options.url, options.issuer)
    _check_same_server(profile)
    token_store(profile.name)  # refuses a file that is not its own
    if options.client_secret_stdin:
        profile = replace(profile, client_secret=ask_secret("client secret", from_stdin=True, option=""))
    _log_in(profile, options)


def _refuse_more_arguments(context: click.Context) -> None:
    if context.args:
        raise ConfigurationError(
            "login takes one URL and no secrets, because other users can read command lines: "
            "use --password-stdin or --paste"
        )


def _proof_algorithm(profile: Profile, server: AuthorizationServer) -> str:
    """Return the algorithm of the proofs for *server*; empty text for the usual one. Raise ConfigurationError."""
    offered = [name for name in PROOF_ALGORITHMS if name in server.proof_algorithms]
    if not profile.dpop or profile.dpop_alg or not server.proof_algorithms:
        return profile.dpop_alg
    if not offered:
        raise ConfigurationError(f"{server.issuer} takes proofs by {', '.join(server.proof_algorithms)} only")
    return "" if offered[0] == PROOF_ALGORITHMS[0] else offered[0]


def _with_endpoints(profile: Profile, url: str, issuer: str) -> Profile:
    """Return *profile* with what the authorization server of the API at *url* says about itself (RFC 8414, RFC 9728).

    An API that says nothing about itself may be its own authorization server.
    """
    plain, resource = profile.plain_http, ""
    if issuer:
        server = oauth2.discover(issuer, allow_plain_http=plain)
    else:
        try:
            found = oauth2.discover_resource(url, allow_plain_http=plain)
            server, resource = found.server, found.resource
        except BadResponse:
            raise
        except ConfigurationError:
            server = _discover_at(url, plain)
    return replace(
        profile,
        issuer=server.issuer,
        resource=resource,
        token_endpoint=server.token_endpoint,
        revocation_endpoint=profile.revocation_endpoint or server.revocation_endpoint,
        authorization_endpoint=server.authorization_endpoint,
        device_authorization_endpoint=server.device_authorization_endpoint,
        returns_issuer=server.returns_issuer,
        client_auth=server.client_auth(),
        dpop_alg=_proof_algorithm(profile, server),
    )


def _discover_at(url: str, allow_plain_http: bool) -> AuthorizationServer:
    try:
        return oauth2.discover(url, allow_plain_http=allow_plain_http)
    except BadResponse:
        raise
    except ConfigurationError as error:
        raise ConfigurationError(
            f"neither {url} nor what it names publishes metadata: name the OAuth 2.0 server with --issuer"
        ) from error


def _server_url(url: str, prefix: str) -> str:
    """Return the URL of the server at *url*: ``unbroken serve`` prints that of the endpoints, with their prefix."""
    return url.rstrip("/").removesuffix(prefix)


def _login_fields(profile: Profile, options: LoginOptions) -> dict[str, str]:
    fields = {"label": options.label or platform.node()} if profile.kind == "unbroken" else {}
    return fields | ({"scope": options.scope} if options.scope else {})


def _log_in(profile: Profile, options: LoginOptions) -> None:
    before = find_profile(profile.name) if profile.name in profile_names() else None
    key = key_for_login(profile, before) if profile.dpop else None
    # It raises ConfigurationError, before any secret is asked for.
    session = ProfileSession(profile, proof_key=key, require_bound=key is not None)  # rule 5
    if options.paste:
        tokens = _log_in_by_refresh_token(session)
        profile = replace(profile, user=_subject(tokens))
    elif options.login_by:
        tokens = _log_in_by_person(session, options)
        profile = replace(profile, user=_subject(tokens))
        _confirm_login(session, profile, may_replace=options.may_replace)  # rule 3
    else:
        profile = replace(profile, user=options.user or ask("user", "--user"))
        _confirm_replacement(profile, may_replace=options.may_replace)  # rule 3
        tokens = _log_in_by_password(session, profile, options)
    _store(profile, tokens, before, key, revoke_old=not (options.paste or options.login_by))
    by = f" as {profile.user}" if profile.user else ""
    bound = ", and bound to a key of this machine" if profile.dpop else ""
    say(f"logged in at {profile.url}{by}; the session is called {profile.name}{bound}")


def _log_in_by_password(session: Session, profile: Profile, options: LoginOptions) -> Tokens:
    fields = _login_fields(profile, options)
    if not all(text.isprintable() for text in (profile.user, *fields.values())):
        raise InvalidRequest("the user, the scope and the label must be printable text")
    password = ask_secret("password", from_stdin=options.password_stdin, option="--password-stdin")

    def mfa_prompt(kind: str, hint: str) -> str:
        label = f"code ({hint or kind})" if hint or kind else "code"
        if options.code_stdin:
            return ask_secret(label, from_stdin=True, option="--code-stdin").strip()
        return ask(label, "--code-stdin")

    try:
        return session.login(profile.user, password, mfa_prompt=mfa_prompt, **fields)
    except (BadResponse, InvalidRequest, TryLater) as error:
        if profile.kind == "unbroken" and not _is_unbroken_server(profile):
            url = profile.url + profile.prefix
            raise ConfigurationError(f"no unbroken server responds at {url} ({error}); see --prefix") from error
        raise


def _is_unbroken_server(profile: Profile) -> bool:
    """Return whether the server has unbroken's endpoints. A server that cannot be reached counts as one."""
    request = HttpRequest("GET", f"{profile.url}{profile.prefix}/health", {"accept": "application/json"})
    try:
        response = http_sender()(request, PROBE_SECONDS)
    except (NotSent, ResponseLost):
        return True
    return value_at(response.json(), "status") is not None


def _log_in_by_person(session: Session, options: LoginOptions) -> Tokens:
    """Return the tokens of a login with a browser, or with a code."""
    login = session.login_in_browser if options.web else session.login_by_device
    return login(scope=options.scope)


def _confirm_login(session: Session, profile: Profile, *, may_replace: bool) -> None:
    """Raise InvalidRequest, and end the new session, if it may not replace the one that has the name."""
    try:
        _confirm_replacement(profile, may_replace=may_replace)
    except (InvalidRequest, EOFError):
        session.logout()
        raise


def _log_in_by_refresh_token(session: Session) -> Tokens:
    """Return the tokens that the server gives for a refresh token."""
    refresh_token = ask_secret("refresh token", from_stdin=True, option="").strip()
    if not (refresh_token.isascii() and refresh_token.isprintable()):
        raise InvalidRequest("this is not a refresh token: it has characters that no token has")
    # There is no access token yet, so the session gets one that counts as rejected, and refreshes.
    session.import_tokens(Tokens(access_token="none", refresh_token=refresh_token))
    try:
        session._handle_challenge(session._authorize(), "login")
    except SessionOver as over:
        raise InvalidRequest(f"the server did not accept the refresh token ({over.reason})") from over
    return session._authorize().tokens


def _subject(tokens: Tokens) -> str:
    """Return the subject in an access token that is a JWT, or an empty text."""
    try:
        claims = json.loads(_base64.decode(tokens.access_token.split(".")[1].rstrip("=")))
    except (ValueError, IndexError, RecursionError):
        return ""
    subject = value_at(claims, "sub")
    return subject if isinstance(subject, str) and subject.isprintable() else ""


# ---- the folder ------------------------------------------------------------------------------------------------------


def _store(profile: Profile, tokens: Tokens, before: Profile | None, key: ProofKey | None, *, revoke_old: bool) -> None:
    """Store the login. A pasted token may belong to the session that had the name: that session is not revoked.

    *before* is the profile that had the name, *key* the one that the new session is bound to.
    """
    if before is None:
        delete_profile(profile.name, profile.store)  # rule 4
    old_key = find_proof_key(before) if before and revoke_old else None
    if key is not None:
        keep_proof_key(profile, key)
    save_profile(profile)
    store = token_store(profile.name, profile.store)
    old_tokens = store.load().tokens
    ProfileSession(profile, store, proof_key=key).import_tokens(tokens)
    if old_tokens and revoke_old and not _is_revoked(before or profile, old_tokens, old_key):
        print("unbroken: the replaced session may stay valid at the server until it expires", file=sys.stderr)
    if before is not None and before.dpop != profile.dpop:
        delete_proof_key(before)


def _is_revoked(profile: Profile, tokens: Tokens, key: ProofKey | None) -> bool:
    """Revoke the session of *tokens*. Return whether the server has confirmed it."""
    session = ProfileSession(profile, proof_key=key)
    try:
        session.import_tokens(tokens)
    except ConfigurationError:  # their key is gone
        return False
    return session.logout()


def _check_same_server(profile: Profile) -> None:
    if profile.name in profile_names() and find_profile(profile.name).server != profile.server:
        raise InvalidRequest(
            f"{profile.name} is a session at {find_profile(profile.name).url}: log it out first, or use another name"
        )


def _store_kind(name: str, wanted: str | None) -> str:
    """Return where the tokens of the session are kept. Programs that use it look there until it is logged out."""
    if name not in profile_names():
        return wanted or "file"
    before = find_profile(name).store
    if wanted in (None, before):
        return before
    raise InvalidRequest(f"the tokens of {name} are kept by --keep {before}: log it out first, or use another name")


def _confirm_replacement(profile: Profile, *, may_replace: bool) -> None:
    """Raise InvalidRequest if the name belongs to another user's session, and the user does not want to replace it."""
    before = find_profile(profile.name).user if profile.name in profile_names() else ""
    if not before or before == profile.user or may_replace:
        return
    if not confirm(f"{profile.name} is a session of {before}: log {before} out and replace it?"):
        raise InvalidRequest(f"{profile.name} is a session of {before}: use another name, or --replace")


def _check_url(url: str, where: str, *, query: bool = False) -> None:
    """Raise InvalidRequest for a wrong URL, without the URL: it may contain a secret. *query*: it may have one."""
    if not url and where != "URL":
        return
    try:
        parts = urlsplit(url)
        if parts.username is not None or parts.fragment or (parts.query and not query):
            raise InvalidRequest(f"{where} must not contain a user, a password, a query or a fragment")
        origin_of(url)
    except (ValueError, ConfigurationError):
        raise InvalidRequest(f"{where} must start with https:// and a host (http:// is for this machine)") from None
