"""Measurements. Each figure is a ratio against a peer or a limit of the same run: machines are shared and noisy."""
