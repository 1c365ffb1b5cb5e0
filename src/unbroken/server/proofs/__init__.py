"""Proofs of possession (DPoP, RFC 9449): which clients send them, and how those of a request are verified."""
