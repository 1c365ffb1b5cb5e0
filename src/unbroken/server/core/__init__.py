"""The pure half of the server: no clock, no randomness, no I/O."""
