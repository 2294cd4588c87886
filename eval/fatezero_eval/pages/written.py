"""What a reader of a run folder hands back: a file, and what it could not show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Written:
    """A file made from a run.

    Attributes:
        path: the file.
        problems: a sentence for each thing of the run that is left out, as it cannot be read.
    """

    path: Path
    problems: tuple[str, ...]
