"""How HTTP clients behave when their access tokens expire: ours beside every other one there is for Python.

``scripts/bench clients`` prints the matrix (``matrix.py``): who runs is in ``contenders.py``, what happens to them in
``scenarios.py``, against the server of ``backend.py``; one process a cell (``cell.py``).
``burst.py``, ``steady.py`` and ``fleet.py`` measure time: of 1,000 requests at once, of one request, of 16 processes.
"""
