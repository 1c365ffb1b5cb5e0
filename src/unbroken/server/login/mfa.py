"""Logins of two steps: what a client holds between the right password and the right code.

1. It is a JWT under a key of its own, derived from the keyring's MAC key: no access token can be taken for it, nor it
   for one, and nobody else can read more from it than its subject and what its own login has asked for.
2. It is good for five minutes, for one session. A wrong code does not spend it: the guard counts those by subject.
3. It dies with the subject's sessions: whoever ends them all ends the logins that are under way, too.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import GuestProtocol, OctKey

from unbroken.errors import ConfigurationError, LoginRefused
from unbroken.server.keys.keyring import Keyring
from unbroken.server.login.authenticator import MfaRequired
from unbroken.server.sessions import Sessions
from unbroken.server.stores.markers import MFA_TOKEN_SECONDS, mark_once, marker_key, run_off_loop, was_voided_since

__all__ = ["MfaTokens", "PendingLogin"]

MAX_MFA_TOKEN_CHARS = 16384  # characters of a step token
TYPE = "login-step+jwt"
MALFORMED_ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, JoseError)


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """A login that waits for its second step: *about* is what the session will be, *account* and *spelling* are the
    guard's keys.
    """

    subject: str
    kind: str
    account: bytes
    spelling: bytes
    about: Mapping[str, Any]
    began: float
    jti: str


class MfaTokens:
    """Makes step tokens, and reads them."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions, self._audience = sessions, sessions.issuer + "#login"

    async def token(self, step: MfaRequired, account: bytes, spelling: bytes, about: Mapping[str, Any]) -> str:
        """The token for *step*. Raises ConfigurationError for one that would be too long to be read again."""
        now = self._sessions.clock()
        mac = (await self._sessions.akeyring()).mac(now)
        header = {"alg": "HS256", "typ": TYPE, "kid": str(mac.number)}
        claims = {
            "aud": self._audience,
            "sub": step.subject,
            "kind": step.kind,
            "iat": now,
            "exp": now + MFA_TOKEN_SECONDS,
            "jti": secrets.token_hex(16),
            "account": account.hex(),
            "spelling": spelling.hex(),
            "about": dict(about),
        }
        token = jwt.encode(header, claims, _key(mac.secret), algorithms=["HS256"])
        if len(token) > MAX_MFA_TOKEN_CHARS:
            raise ConfigurationError(
                f"a step token has at most {MAX_MFA_TOKEN_CHARS} characters: see what scopes_of allows"
            )
        return token

    async def read(self, token: str) -> PendingLogin:
        """What *token* says. Raises LoginRefused, with the reason ``mfa_token``, if it is not good, or no longer."""
        now = self._sessions.clock()
        try:
            begun, ends = self._read(token, await self._sessions.akeyring(), now)
        except MALFORMED_ERRORS:
            raise start_over() from None
        if now >= ends:
            raise start_over()
        if await run_off_loop(self._sessions.store, lambda: self.is_over(begun)):
            raise start_over()
        return begun

    async def is_over(self, begun: PendingLogin) -> bool:
        """Whether the subject's sessions were ended since the password was right."""
        return await was_voided_since(self._sessions.store, begun.subject, begun.began)

    async def spend(self, begun: PendingLogin) -> None:
        """Raises LoginRefused if a session has begun by it already. To be asked after the code."""
        store, key = self._sessions.store, marker_key(b"step", begun.jti.encode())
        if not await run_off_loop(
            store, lambda: mark_once(store, key, self._sessions.clock(), 2.0 * MFA_TOKEN_SECONDS)
        ):
            raise start_over()

    def _read(self, token: str, keyring: Keyring, now: float) -> tuple[PendingLogin, float]:
        if len(token) > MAX_MFA_TOKEN_CHARS:
            raise ValueError

        def key(found: GuestProtocol) -> OctKey:
            header = found.headers()
            secret = keyring.mac_key(int(header["kid"]), now)
            if header["typ"] != TYPE or secret is None:
                raise ValueError
            return _key(secret)

        said = jwt.decode(token, key, algorithms=["HS256"]).claims
        if said["aud"] != self._audience:
            raise ValueError
        account, spelling = bytes.fromhex(said["account"]), bytes.fromhex(said["spelling"])
        begun = PendingLogin(said["sub"], said["kind"], account, spelling, said["about"], said["iat"], said["jti"])
        return begun, said["exp"]


def start_over() -> LoginRefused:
    """The error for every step token that is not good."""
    return LoginRefused("this login cannot go on: begin again, with the password", reason="mfa_token")


def _key(secret: bytes) -> OctKey:
    return OctKey.import_key(hmac.digest(secret, b"unbroken login step", "sha256"))
