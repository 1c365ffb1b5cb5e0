"""Who may log in: the application's own check of credentials, its rate limit, devices, MFA, embedded accounts."""
