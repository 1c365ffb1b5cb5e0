"""``python -m bench [authorize] [herd] [server] [--small] [steady] [burst] [fleet [SECONDS]]``: a Markdown table.

``server`` writes a million sessions into each database and takes some ten minutes; with ``--small`` a tenth of them.

``python -m bench clients [a b c …] [NAME …]`` prints tables of its own. Exit status 1 if a limit was missed.
"""

from __future__ import annotations

import sys
from functools import partial

from bench import authorize, herd, server
from bench.clients import burst, fleet, matrix, steady

PARTS = {
    "authorize": authorize.figures,
    "herd": herd.figures,
    "server": server.figures,
    "steady": steady.figures,
    "burst": burst.figures,
    "fleet": fleet.figures,
}


def main() -> int:
    if sys.argv[1:2] == ["clients"]:
        return matrix.main(sys.argv[2:])
    words = [word for word in sys.argv[1:] if word != "--small"]
    small = len(words) < len(sys.argv) - 1
    seconds = [float(word) for word in words if word.isdigit()]
    wanted = [word for word in words if not word.isdigit()] or list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        sys.exit(f"bench: there is no part {min(unknown)!r}: use {', '.join(PARTS)}")
    parts = PARTS | {"fleet": partial(fleet.figures, *seconds), "server": partial(server.figures, small=small)}
    missed = False
    print("| what | figure | limit | reached |\n|---|---|---|---|")
    for name in wanted:
        for figure in parts[name]():
            print(figure.row(), flush=True)
            missed |= figure.reached is False
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
