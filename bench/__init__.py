"""Benchmarks. Each figure is a ratio to a peer, or compared with a limit, in the same run: machines are shared and noisy."""
