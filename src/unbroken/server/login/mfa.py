"""Logins that wait for the code of a second factor (MFA): the token between the right password and the right code.

1. It is a single-purpose token (``keys/purpose_token.py``): no access token can be taken for it, nor it for an access
   token. Its client can read nothing from it but the subject and what it has sent itself.
2. It is valid for five minutes and for one session. A wrong code does not use it up: the rate limit counts wrong codes
   by subject. A value that no server of ours has made costs the store nothing.
3. Revoking all sessions of the subject voids it.
4. It counts only where it was issued: at its issuer, for its audience, and only if the store knows that it was issued.
   So the keys alone make none: what the password proved, the kind of the code above all, cannot be made up.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from unbroken.errors import LoginRefused
from unbroken.server.core.session_info import NewSession
from unbroken.server.keys.keyring import Keyring
from unbroken.server.keys.purpose_token import PurposeToken, mac_number_of
from unbroken.server.keys.strict_jwt import MALFORMED_ERRORS, read_text, read_time
from unbroken.server.login.authenticator import MfaRequired
from unbroken.server.sessions import Sessions
from unbroken.server.stores.base import run_in_worker
from unbroken.server.stores.markers import MFA_TOKEN_SECONDS, mark_once, marker_key, was_voided_since

__all__ = ["MfaTokens", "PendingLogin", "mfa_token_refused"]

MAX_MFA_TOKEN_CHARS = 16384
MFA_TOKEN = PurposeToken(
    "login-step+jwt",
    b"unbroken login step",
    max_seconds=MFA_TOKEN_SECONDS,
    max_chars=MAX_MFA_TOKEN_CHARS,
    too_long="see what scopes_of allows",
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
        self._sessions, self._store = sessions, sessions.store

    async def issue(
        self, mfa: MfaRequired, account: bytes, spelling: bytes, session: NewSession, device: bytes = b""
    ) -> str:
        """Return the token for *mfa*. Raise ConfigurationError if it would be too long to be read again."""
        now = self._sessions.clock()
        claims = {
            "iss": self._sessions.issuer,
            "aud": self._sessions.audience,
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
        token = MFA_TOKEN.encode(claims, await self._sessions.acached_keyring(), now)  # rule 1
        key, seconds = _issued_key(token), MFA_TOKEN_SECONDS
        await run_in_worker(self._store, lambda: self._store.advance_marker(key, now, seconds, seconds))
        return token

    async def read(self, token: str, on_junk: Callable[[], None] = lambda: None) -> PendingLogin:
        """Return the login of *token*. Raise LoginRefused, reason ``mfa_token``, if it is not valid any more.

        *on_junk* is called before that for a value that no server of ours has made; it may raise an error of its own.
        """
        now = self._sessions.clock()
        try:
            pending, expires_at = self._read(token, await self._sessions.acached_keyring(mac_number_of(token)), now)
        except MALFORMED_ERRORS:
            on_junk()
            raise mfa_token_refused() from None
        if now >= expires_at or not await run_in_worker(self._store, lambda: self._was_issued(token)):
            raise mfa_token_refused()
        if await run_in_worker(self._sessions.store, lambda: self.is_voided(pending)):
            raise mfa_token_refused()
        return pending

    async def is_voided(self, pending: PendingLogin) -> bool:
        """Return whether the subject's sessions were all revoked since the password was right (rule 3)."""
        return await was_voided_since(self._sessions.store, pending.subject, pending.started)

    async def spend(self, pending: PendingLogin) -> None:
        """Mark the token as used. Raise LoginRefused if it was used before. Call it once the code is right."""
        store, key = self._sessions.store, marker_key(b"step", pending.jti.encode())
        is_first = await run_in_worker(
            store,
            lambda: mark_once(store, key, self._sessions.clock(), 2.0 * MFA_TOKEN_SECONDS),  # rule 2
        )
        if not is_first:
            raise mfa_token_refused()

    def _read(self, token: str, keyring: Keyring, now: float) -> tuple[PendingLogin, float]:
        claims = MFA_TOKEN.decode(token, keyring, now)
        if claims["iss"] != self._sessions.issuer or claims["aud"] != self._sessions.audience:  # rule 4
            raise ValueError
        subject, kind, jti = (read_text(claims[name]) for name in ("sub", "kind", "jti"))
        account, spelling, device = (
            bytes.fromhex(read_text(claims[name])) for name in ("account", "spelling", "device")
        )
        session = _new_session(claims["about"])
        pending = PendingLogin(subject, kind, account, spelling, session, read_time(claims["iat"]), jti, device)
        return pending, read_time(claims["exp"])

    async def _was_issued(self, token: str) -> bool:
        """Return whether the store knows *token* (rule 4)."""
        [issued] = await self._store.read_markers([_issued_key(token)])
        return issued > 0.0


def _issued_key(token: str) -> bytes:
    return marker_key(b"step issued", token.encode())


def _new_session(about: Mapping[str, object]) -> NewSession:
    """Return what a login asked for. Raise one of ``MALFORMED_ERRORS``."""
    session = NewSession(**about)  # type: ignore[arg-type]  # checked below
    for text in (session.client_id, session.scope, session.label, session.jkt):
        read_text(text)
    if not isinstance(session.coordinated, bool):
        raise TypeError
    return session


def mfa_token_refused() -> LoginRefused:
    """Return the error for every MFA token that is not good."""
    return LoginRefused("the mfa_token is invalid or expired: log in again, with the password", reason="mfa_token")
