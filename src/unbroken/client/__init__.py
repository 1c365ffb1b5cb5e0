"""The client's end of a session. Users import its names from ``unbroken``."""
