"""Logins that wait for a code (MFA): the token that a client holds between the right password and the right code.

1. It is a single-purpose token (``keys/purpose_token.py``): no access token can be taken for it, nor it for an access
   token. Its client can read nothing from it but the subject and what it has sent itself.
2. It is valid for five minutes and for one session. A wrong code does not use it up: the rate limit counts wrong codes
   by subject. A value that no server of ours has made costs the store nothing.
3. Revoking all sessions of the subject voids it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from unbroken.errors import LoginRefused
from unbroken.server.core.session_info import NewSession
from unbroken.server.keys.keyring import Keyring
from unbroken.server.keys.purpose_token import MALFORMED_ERRORS, PurposeToken, mac_number_of
from unbroken.server.login.authenticator import MfaRequired
from unbroken.server.sessions import Sessions
from unbroken.server.stores.markers import MFA_TOKEN_SECONDS, mark_once, marker_key, was_voided_since
from unbroken.server.worker_pool import run_in_worker

__all__ = ["MfaTokens", "PendingLogin", "mfa_token_refused"]

MAX_MFA_TOKEN_CHARS = 16384
MFA_TOKEN = PurposeToken(
    "login-step+jwt", b"unbroken login step", max_chars=MAX_MFA_TOKEN_CHARS, too_long="see what scopes_of allows"
)


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """A login that waits for a code. *account* and *spelling* are the rate limit's keys of the name.

    *device* is the id of the device that the password came from, if the account knows it.
    """

    subject: str
    kind: str
    account: bytes
    spelling: bytes
    session: NewSession
    started: float
    jti: str
    device: bytes


class MfaTokens:
    """Issues MFA tokens, and reads them."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions, self._audience = sessions, sessions.issuer + "#login"

    async def issue(
        self, mfa: MfaRequired, account: bytes, spelling: bytes, session: NewSession, device: bytes = b""
    ) -> str:
        """Return the token for *mfa*. Raises ConfigurationError if it would be too long to be read again."""
        now = self._sessions.clock()
        claims = {
            "aud": self._audience,
            "sub": mfa.subject,
            "kind": mfa.kind,
            "iat": now,
            "exp": now + MFA_TOKEN_SECONDS,
            "jti": secrets.token_hex(16),
            "account": account.hex(),
            "spelling": spelling.hex(),
            "device": device.hex(),
            "about": session._asdict(),
        }
        return MFA_TOKEN.encode(claims, await self._sessions.acached_keyring(), now)

    async def read(self, token: str, on_junk: Callable[[], None] = lambda: None) -> PendingLogin:
        """Return the login of *token*. Raises LoginRefused, reason ``mfa_token``, if it is not valid any more.

        *on_junk* is called before that for a value that no server of ours has made; it may raise an error of its own.
        """
        now = self._sessions.clock()
        try:
            pending, expires_at = self._read(token, await self._sessions.acached_keyring(mac_number_of(token)), now)
        except MALFORMED_ERRORS:
            on_junk()
            raise mfa_token_refused() from None
        if now >= expires_at:
            raise mfa_token_refused()
        if await run_in_worker(self._sessions.store, lambda: self.is_voided(pending)):
            raise mfa_token_refused()
        return pending

    async def is_voided(self, pending: PendingLogin) -> bool:
        """Return whether the subject's sessions were all revoked since the password was right (rule 3)."""
        return await was_voided_since(self._sessions.store, pending.subject, pending.started)

    async def spend(self, pending: PendingLogin) -> None:
        """Mark the token as used. Raises LoginRefused if it was used before. Call it once the code is right."""
        store, key = self._sessions.store, marker_key(b"step", pending.jti.encode())
        is_first = await run_in_worker(
            store, lambda: mark_once(store, key, self._sessions.clock(), 2.0 * MFA_TOKEN_SECONDS)
        )
        if not is_first:
            raise mfa_token_refused()

    def _read(self, token: str, keyring: Keyring, now: float) -> tuple[PendingLogin, float]:
        claims = MFA_TOKEN.decode(token, keyring, now)
        if claims["aud"] != self._audience:
            raise ValueError
        account, spelling = bytes.fromhex(claims["account"]), bytes.fromhex(claims["spelling"])
        session = NewSession(**claims["about"])
        device = bytes.fromhex(claims["device"])
        pending = PendingLogin(
            claims["sub"], claims["kind"], account, spelling, session, claims["iat"], claims["jti"], device
        )
        return pending, claims["exp"]


def mfa_token_refused() -> LoginRefused:
    """Return the error for every MFA token that is not good."""
    return LoginRefused("the mfa_token is invalid or expired: log in again, with the password", reason="mfa_token")
