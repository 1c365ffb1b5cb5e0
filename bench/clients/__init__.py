"""How HTTP clients behave when their access tokens expire: ours, and every other one for Python.

``scripts/bench clients`` prints the matrix (``matrix.py``): ``contenders.py`` lists the clients, ``scenarios.py`` what
happens to them, ``backend.py`` is the server; each cell is a process of its own (``cell.py``). ``burst.py``,
``steady.py`` and ``fleet.py`` measure time: of 1,000 requests at once, of one request, of 16 processes.
"""
