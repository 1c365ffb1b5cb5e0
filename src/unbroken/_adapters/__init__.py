"""Code that the adapters of similar HTTP libraries share."""
