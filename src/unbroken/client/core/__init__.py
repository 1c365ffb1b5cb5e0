"""The pure half of the client: no clock, no randomness, no I/O."""
