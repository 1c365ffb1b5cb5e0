"""Who may log in: the application's own check of credentials, its rate limit, MFA, and an embedded account table."""
