"""The session of a profile: one login by name, for every command and program of a user (``profiles.py``)."""

from __future__ import annotations

from typing import Any

from unbroken.client.core.schedule import ActiveTokens
from unbroken.client.core.token_store import TokenStore
from unbroken.client.profile_keys import proof_settings
from unbroken.client.profiles import LogInAgain, Profile, ProfileStore, find_profile, token_store
from unbroken.client.session import Session
from unbroken.errors import ConfigurationError, SessionOver

__all__ = ["ProfileSession"]

DECIDED = {"dialect", "store", "origins", "allow_plain_http", "proof_key", "require_bound"}  # by the login


class ProfileSession(Session):
    """The session of *profile*, with its tokens in *store* or in memory. Its SessionOver says how to log in again."""

    def __init__(self, profile: Profile, store: TokenStore | None = None, **settings: Any) -> None:
        self.profile = profile
        try:
            super().__init__(
                profile.dialect(),
                store,
                origins=profile.origins,
                allow_plain_http=profile.plain_http,
                **settings,
            )
        except ConfigurationError as error:  # it names the parameter of a program, not the option
            message = str(error).replace("say allow_plain_http=True", "log in with --allow-plain-http")
            raise ConfigurationError(message) from error

    @classmethod
    def of_name(cls, name: str, settings: dict[str, Any]) -> ProfileSession:
        """Return the session *name* with *settings*. Raise as ``Session.open`` does."""
        if decided := sorted(settings.keys() & DECIDED):
            raise ConfigurationError(f"Session.open takes no {decided[0]}: `unbroken login` has decided it")
        profile = find_profile(name)
        store = ProfileStore(token_store(name, profile.store), profile)
        return cls(profile, store, **settings, **proof_settings(profile))

    def fresh_tokens(self) -> ActiveTokens:
        """Return tokens that do not expire soon; those of another program, if it has stored newer ones."""
        self._adopt_newer()
        return self._authorize(fresh=True)

    async def afresh_tokens(self) -> ActiveTokens:
        """Return what ``fresh_tokens`` returns, without blocking."""
        await self._in_thread(self._adopt_newer)
        return await self._aauthorize(fresh=True)

    def _adopt_newer(self) -> None:
        """Notice what other programs did: a refresh, a logout. The rules look only when a refresh is due."""
        active = self._state.active
        try:
            if active is not None and self.store.load().version != active.tokens.version:
                self._coordinator.load()
        except SessionOver as over:
            raise LogInAgain(over.reason, self.profile) from over

    def __reduce__(self) -> tuple[object, ...]:
        given = {name: value for name, value in self._settings.items() if name not in DECIDED}
        return (_rebuild_of_profile, (self.profile, self.store, given))

    def _authorize(self, *, fresh: bool = False) -> ActiveTokens:
        try:
            return super()._authorize(fresh=fresh)
        except SessionOver as over:
            raise LogInAgain(over.reason, self.profile) from over

    async def _aauthorize(self, *, fresh: bool = False) -> ActiveTokens:
        try:
            return await super()._aauthorize(fresh=fresh)
        except SessionOver as over:
            raise LogInAgain(over.reason, self.profile) from over

    def _handle_challenge(self, sent: ActiveTokens, endpoint: object) -> ActiveTokens | None:
        try:
            return super()._handle_challenge(sent, endpoint)
        except SessionOver as over:
            raise LogInAgain(over.reason, self.profile) from over

    async def _ahandle_challenge(self, sent: ActiveTokens, endpoint: object) -> ActiveTokens | None:
        try:
            return await super()._ahandle_challenge(sent, endpoint)
        except SessionOver as over:
            raise LogInAgain(over.reason, self.profile) from over


def _rebuild_of_profile(profile: Profile, store: TokenStore, settings: dict[str, Any]) -> Session:
    return ProfileSession(profile, store, **settings, **proof_settings(profile))
