"""The pure half of the server: no clock, no randomness, no I/O. Refresh tokens and their rotation, RFC 9700 §4.14.2."""
