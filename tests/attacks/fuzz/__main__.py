"""Feed the parsers with mutations: ``python -m tests.attacks.fuzz --count 100000 [--parser NAME] [--seed N]``.

With ``--atheris`` the mutations follow the coverage of our own code; it needs the package of that name. An input that
a parser stumbles over is written into ``corpus/``, where the tests find it, and ends the run with status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

from tests.attacks.fuzz.mutations import mutations
from tests.attacks.fuzz.parsers import PARSERS

CORPUS = Path(__file__).parent / "corpus"


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.attacks.fuzz", description=__doc__)
    options.add_argument("--count", type=int, default=100_000, help="inputs in all, shared by the parsers")
    options.add_argument("--parser", choices=PARSERS, help="only this parser")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--atheris", action="store_true", help="let coverage guide the mutations")
    given = options.parse_args()
    if given.atheris:
        return run_atheris(given.parser, given.count)
    names = [given.parser] if given.parser else list(PARSERS)
    found = 0
    for name in names:
        began, count = time.monotonic(), given.count // len(names)
        found += sum(not holds(name, data) for data in mutations(PARSERS[name].seeds, count, given.seed))
        say(f"{name:24} {count:>9,} inputs in {time.monotonic() - began:6.1f} s")
    say(f"{found} inputs found")
    return 1 if found else 0


def say(line: str) -> None:
    """Print *line* at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def holds(name: str, data: bytes) -> bool:
    """Return whether the parser *name* stands *data*; if not, keep it."""
    try:
        PARSERS[name].parse(data)
    except PARSERS[name].errors:
        pass
    except Exception as error:  # noqa: BLE001  # that is what is looked for
        file = CORPUS / f"{name.replace(' ', '-')}.{hashlib.sha256(data).hexdigest()[:12]}"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
        sys.stderr.write(f"{name}: {type(error).__name__}: {error}: {file}\n")
        return False
    return True


def run_atheris(name: str | None, count: int) -> int:
    """Run one parser, or all of them in turn, under coverage; atheris ends the process itself."""
    import atheris  # type: ignore[import-not-found,unused-ignore]  # no development tool: it has builds for Linux only

    names = [name] if name else list(PARSERS)

    def one(data: bytes) -> None:
        chosen = names[data[0] % len(names)] if data else names[0]
        if not holds(chosen, data[1:]):
            raise AssertionError(chosen)

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-atheris_runs={count}", "-max_len=2000", "-print_final_stats=1"], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
