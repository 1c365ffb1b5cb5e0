"""Programs that use an unbroken server at URL; ``docs/anywhere.md`` explains them.

API_USER=ada API_PASSWORD=... python examples/NAME.py URL
"""
