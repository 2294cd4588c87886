"""`fatezero trust`: which metrics follow the distance to the true edit, and which mislead."""

from __future__ import annotations

from pathlib import Path

from fatezero.system.importing import importing
from fatezero.system.terminal import complain, say


def trust(runs: tuple[Path, ...], *, out: Path | None = None, distance: str = "mse/truth") -> int:
    """Write the tables and print them in short.

    Args:
        runs: scored run folders whose true edits are known, such as those of fatezero degrade.
        out: where the tables go; the first run by default.
        distance: the metric that says how far an edit is from the true one.

    Returns:
        0, or 1 if a result could not be read and is left out.
    """
    with importing():
        from fatezero_eval.validity.trust_files import write_trust

    found = write_trust(runs, out or runs[0], distance)
    for problem in found.problems:
        complain(problem)
    say(found)
    return 1 if found.problems else 0
