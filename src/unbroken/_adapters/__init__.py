"""What HTTP libraries that are alike share."""
