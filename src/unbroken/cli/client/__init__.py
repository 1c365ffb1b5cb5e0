"""The client's commands: sessions by name, for people, for scripts, and for programs that ask for credentials."""
