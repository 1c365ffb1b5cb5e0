"""The endpoints: a Request value in, a Response value out."""
