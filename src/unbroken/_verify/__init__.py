"""What a ``Verifier`` is made of: remote values that are cached and refreshed, and two ways to learn of revocations."""
