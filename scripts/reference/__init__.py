"""Writes the reference pages of ``docs/reference`` from the code, and ``docs/llms.txt`` from the index of the pages.

    python -m scripts.reference            write them
    python -m scripts.reference --check    exit status 1 if one is not what it would write

1. A page is a function that returns its text. Nothing of it depends on the machine, the time or the terminal.
2. What a page says about a name is what the code says: its signature, its docstring, its comment, its help.
"""
