"""A hundred processes of four kinds on three hosts share logins at servers of others; every two seconds one is killed.

``python -m bench clients fleet [--minutes M] [--small] [--peers]``.
"""
