"""``python -m bench [authorize] [cli] [floods] [herd] [proofs] [server] [--small] [steady] [burst] [fleet [SECONDS]]
[browser]``.

It prints Markdown. ``server`` writes a million sessions into each database and takes about ten minutes; with
``--small`` a tenth of them. ``browser`` needs Chromium and npm, and ends with a table of its own; without them it is
omitted, unless it is named.

``python -m bench clients [a b c …] [NAME …]`` prints tables of its own; ``python -m bench clients fleet`` kills members
of a fleet for ten minutes (``--minutes M``, ``--small``, ``--peers``). ``scale`` and ``soak`` print tables of their
own, too: ten million sessions, and a long run (``bench/scale``).

Exit status 3: a limit of time or size was missed; 1: a count is wrong, or a program broke.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from bench import authorize, cli, floods, herd, proofs, scale, server
from bench.browser import figures as browser
from bench.browser.parts import missing
from bench.clients import burst, fleet, matrix, steady
from bench.clients.kills import fleet as kills
from bench.figure import print_figures
from unbroken.server.stores.encrypted_keys import new_key

PARTS = {
    "authorize": authorize.figures,
    "cli": cli.figures,
    "floods": floods.figures,
    "herd": herd.figures,
    "proofs": proofs.figures,
    "server": server.figures,
    "steady": steady.figures,
    "burst": burst.figures,
    "fleet": fleet.figures,
    "browser": browser.figures,
}


def main() -> int:
    os.environ.setdefault("UNBROKEN_ENCRYPTION_KEY", new_key())  # stores on servers need one
    if sys.argv[1:3] == ["clients", "fleet"]:
        return kills.main(sys.argv[3:])
    if sys.argv[1:2] == ["scale"]:
        return scale.main(sys.argv[2:])
    if sys.argv[1:2] == ["soak"]:
        return scale.run_soak(sys.argv[2:])
    if sys.argv[1:2] == ["clients"]:
        return matrix.main(sys.argv[2:])
    words = [word for word in sys.argv[1:] if word != "--small"]
    small = len(words) < len(sys.argv) - 1
    seconds = [float(word) for word in words if word.isdigit()]
    wanted = [word for word in words if not word.isdigit()] or _all()
    wanted.sort(key="browser".__eq__)  # last, because it ends with another table
    if unknown := set(wanted) - set(PARTS):
        sys.exit(f"bench: there is no part {min(unknown)!r}: use {', '.join(PARTS)}")
    parts = PARTS | {"fleet": partial(fleet.figures, *seconds), "server": partial(server.figures, small=small)}
    return print_figures(figure for name in wanted for figure in parts[name]())


def _all() -> list[str]:
    """Return all parts that can run here."""
    if not (what := missing()):
        return list(PARTS)
    print(f"bench: browser is omitted: {what}", file=sys.stderr)
    return [name for name in PARTS if name != "browser"]


if __name__ == "__main__":
    sys.exit(main())
