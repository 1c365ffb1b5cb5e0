"""``python -m bench [authorize] [herd] [server]``: a Markdown table. Exit status 1 if a limit was missed."""

from __future__ import annotations

import sys

from bench import authorize, herd, server

PARTS = {"authorize": authorize.figures, "herd": herd.figures, "server": server.figures}


def main() -> int:
    wanted = sys.argv[1:] or list(PARTS)
    if unknown := set(wanted) - set(PARTS):
        sys.exit(f"bench: there is no part {min(unknown)!r}: use {', '.join(PARTS)}")
    missed = False
    print("| what | figure | limit | reached |\n|---|---|---|---|")
    for name in wanted:
        for figure in PARTS[name]():
            print(figure.row(), flush=True)
            missed |= figure.reached is False
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
