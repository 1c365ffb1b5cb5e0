"""What turns a login or a token into tokens."""
