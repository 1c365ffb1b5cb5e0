"""Examples that run, against a server of unbroken's at URL; ``docs/anywhere.md`` explains them.

API_USER=ada API_PASSWORD=... python examples/NAME.py URL
"""
