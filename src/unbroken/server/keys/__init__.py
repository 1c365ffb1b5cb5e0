"""Keys, and the tokens that they sign."""
