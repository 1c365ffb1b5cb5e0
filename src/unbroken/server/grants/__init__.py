"""From a login, a refresh token (RFC 6749 §6) or a ticket to tokens and claims."""
