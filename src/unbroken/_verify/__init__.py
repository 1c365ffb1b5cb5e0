"""What services that only verify tokens are made of."""
