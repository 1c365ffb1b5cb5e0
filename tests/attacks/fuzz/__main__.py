"""Feed the parsers with mutations: ``python -m tests.attacks.fuzz --count 100000 [--parser NAME] [--seed N]``.

With ``--atheris`` the mutations begin with the seeds of the parsers and follow the coverage of our own code; it needs
the package of that name. An input that a parser stumbles over is written into ``corpus/``, where the tests find it, and
ends the run with status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
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
        return run_atheris([given.parser] if given.parser else list(PARSERS), given.count, given.seed)
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


def run_atheris(names: list[str], count: int, seed: int) -> int:
    """Run the parsers *names* under coverage: the first byte chooses one. Atheris ends the process itself."""
    import atheris  # type: ignore[import-not-found,unused-ignore]  # no development tool: it has builds for Linux only

    def one(data: bytes) -> None:
        chosen = names[data[0] % len(names)] if data else names[0]
        if not holds(chosen, data[1:]):
            raise AssertionError(chosen)

    options = [f"-atheris_runs={count}", f"-seed={seed}", "-max_len=2000", "-print_final_stats=1"]
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *options, write_seeds(names)], one)
    atheris.Fuzz()
    return 0


def write_seeds(names: list[str]) -> str:
    """Write a file for each seed of the parsers *names*, and return the new folder; atheris adds what it finds."""
    folder = Path(tempfile.mkdtemp(prefix="unbroken-fuzz-"))
    inputs = [bytes([number]) + seed for number, name in enumerate(names) for seed in PARSERS[name].seeds]
    for number, data in enumerate(inputs):
        (folder / f"seed-{number}").write_bytes(data)
    return str(folder)


if __name__ == "__main__":
    sys.exit(main())
