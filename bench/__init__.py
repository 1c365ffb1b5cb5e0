"""Benchmarks. Each figure is a ratio to a peer, or has a limit, in the same run: machines are shared and noisy."""
