"""Logins of two steps: what a client holds between the right password and the right code.

1. It is a JWT under a key of its own, derived from the keyring's MAC key: no access token can be taken for it, nor it
   for one, and nobody else can read more from it than its subject and what its own login has asked for.
2. It is good for five minutes, for one session. A wrong code does not spend it: the guard counts those by subject.
3. It dies with the subject's sessions: whoever ends them all ends the logins that are under way, too.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unbroken.errors import LoginRefused
from unbroken.server.keys.keyring import Keyring
from unbroken.server.keys.purpose_token import MALFORMED_ERRORS, PurposeToken
from unbroken.server.login.authenticator import MfaRequired
from unbroken.server.sessions import Sessions
from unbroken.server.stores.markers import MFA_TOKEN_SECONDS, mark_once, marker_key, was_voided_since
from unbroken.server.worker_pool import run_in_worker

__all__ = ["MfaTokens", "PendingLogin"]

MAX_MFA_TOKEN_CHARS = 16384  # characters of a step token
MFA_TOKEN = PurposeToken(
    "login-step+jwt", b"unbroken login step", max_chars=MAX_MFA_TOKEN_CHARS, too_long="see what scopes_of allows"
)


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
        return MFA_TOKEN.encode(claims, await self._sessions.akeyring(), now)

    async def read(self, token: str) -> PendingLogin:
        """What *token* says. Raises LoginRefused, with the reason ``mfa_token``, if it is not good, or no longer."""
        now = self._sessions.clock()
        try:
            begun, ends = self._read(token, await self._sessions.akeyring(), now)
        except MALFORMED_ERRORS:
            raise start_over() from None
        if now >= ends:
            raise start_over()
        if await run_in_worker(self._sessions.store, lambda: self.is_over(begun)):
            raise start_over()
        return begun

    async def is_over(self, begun: PendingLogin) -> bool:
        """Whether the subject's sessions were ended since the password was right."""
        return await was_voided_since(self._sessions.store, begun.subject, begun.began)

    async def spend(self, begun: PendingLogin) -> None:
        """Raises LoginRefused if a session has begun by it already. To be asked after the code."""
        store, key = self._sessions.store, marker_key(b"step", begun.jti.encode())
        if not await run_in_worker(
            store, lambda: mark_once(store, key, self._sessions.clock(), 2.0 * MFA_TOKEN_SECONDS)
        ):
            raise start_over()

    def _read(self, token: str, keyring: Keyring, now: float) -> tuple[PendingLogin, float]:
        said = MFA_TOKEN.decode(token, keyring, now)
        if said["aud"] != self._audience:
            raise ValueError
        account, spelling = bytes.fromhex(said["account"]), bytes.fromhex(said["spelling"])
        begun = PendingLogin(said["sub"], said["kind"], account, spelling, said["about"], said["iat"], said["jti"])
        return begun, said["exp"]


def start_over() -> LoginRefused:
    """The error for every step token that is not good."""
    return LoginRefused("this login cannot go on: begin again, with the password", reason="mfa_token")
