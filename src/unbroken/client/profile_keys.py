"""The proof keys of profiles: one for each name that has logged in with ``--dpop`` (``profiles.py``, ``proof_key.py``).

1. A key is made in memory, and kept when the server has accepted the login. A login under the same name keeps its key,
   so that programs which use the name go on.
2. Only a login makes a key. Where it is missing, the session is over for this user, who logs in again.
3. The key is in a file of its own beside the tokens, or in an entry of its own of the keyring.
"""

from __future__ import annotations

from typing import Any

from unbroken._private_files import replace_private
from unbroken.client.profiles import KEYRING_SERVICE, Profile, key_file, key_name, prepare_folder
from unbroken.client.proof_key import ProofAlgorithm, ProofKey, keyring_secret, private_pem
from unbroken.errors import ConfigurationError

__all__ = ["find_proof_key", "keep_proof_key", "key_for_login", "proof_settings"]


def proof_settings(profile: Profile) -> dict[str, Any]:
    """Return the settings of a Session of *profile*: with its key if it is bound to one."""
    if not profile.dpop:
        return {}
    return {"proof_key": find_proof_key(profile) or ProofKey.in_memory(), "require_bound": True}  # rule 2


def find_proof_key(profile: Profile) -> ProofKey | None:
    """Return the key of *profile*; None without one. Raise ConfigurationError or StoreUnavailable."""
    algorithm: ProofAlgorithm | None = profile.dpop_alg or None  # type: ignore[assignment]  # checked by the profile
    if profile.dpop == "keyring":
        is_there = keyring_secret(KEYRING_SERVICE, key_name(profile.name)) is not None
        locks = prepare_folder() / "locks"
        return (
            ProofKey.in_keyring(KEYRING_SERVICE, key_name(profile.name), algorithm, locks=locks) if is_there else None
        )
    if profile.dpop == "file" and key_file(profile.name).exists():
        return ProofKey.in_file(key_file(profile.name), algorithm)
    return None


def key_for_login(profile: Profile, before: Profile | None) -> ProofKey:
    """Return the key for a login of *profile*: that which its name has already, if it fits, or a new one (rule 1)."""
    algorithm: ProofAlgorithm = profile.dpop_alg or "ES256"  # type: ignore[assignment]  # checked by the profile
    if before is not None and before.dpop == profile.dpop:
        try:
            key = find_proof_key(before)
        except ConfigurationError:  # it is damaged: the login replaces it
            key = None
        if key is not None and (not profile.dpop_alg or key.algorithm == algorithm):
            return key
    return ProofKey.in_memory(algorithm)


def keep_proof_key(profile: Profile, key: ProofKey) -> None:
    """Keep *key* for *profile* (rule 3). Raise ConfigurationError or StoreUnavailable if it cannot be kept."""
    if profile.dpop == "keyring":
        keyring_secret(KEYRING_SERVICE, key_name(profile.name), private_pem(key))
        return
    try:
        prepare_folder()
        replace_private(key_file(profile.name), private_pem(key))
    except OSError as error:
        raise ConfigurationError(f"the proof key cannot be written: {error.strerror}") from error
