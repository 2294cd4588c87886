"""What the files of a run folder are called: whoever writes or reads one finds its name here.

<run>/experiment.json                   what an ablation compares
<run>/results.parquet                   one row for each result
<run>/<variant>/plan.json               what was asked for
<run>/<variant>/<edit>/                 a result, whole: it appears with its record
<run>/<variant>/<edit>.failed.json      why there is no result
<run>/evaluation/                       scores, one row for each result and metric

Hidden names (".anything", at every level) are somebody's work in progress, or what is left of it: no reader sees them.
A run folder may come from anyone: what readers open of it lies in it, links followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from fatezero.data.files import json_digest
from fatezero.errors import UserError

EXPERIMENT = "experiment.json"
RESULTS = "results.parquet"
PLAN = "plan.json"
RECORD = "meta.json"  # of a result: its presence says that the result is whole
FRAMES, MASKS = "frames", "masks"
EDITED_VIDEO, MASK_VIDEO, SIDE_BY_SIDE_VIDEO = "edited.mp4", "masks.mp4", "side_by_side.mp4"
EVALUATION = "evaluation"
ROWS = "rows.jsonl"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")  # on every disk
# What this program's own files beside results end in, or may come to end in.
_OWN_SUFFIXES = (".json", ".jsonl", ".log", ".lock", ".partial", ".pieces", ".old", ".parquet", ".html")
NAME_BYTES = 240  # of a result or a variant; file systems end at 255, and endings are put to it
# What else lies in a run folder: a variant of such a name would meet it.
_RESERVED = (
    *(EXPERIMENT, RESULTS, EVALUATION, PLAN, "dataset", "wandb", "csv", "tensorboard", "index.html"),
    *("leaderboard.*", "differences.*", "weighted.*", "trust.*", "preferences.*", "*.png", "*.failed.json"),
    *("source", "no edit", "truth", "true edit"),  # other rows of every evaluation
)


def result_name(edit: str) -> str:
    """What the folder of an edit's result is called, whose id may be any text.

    An id of letters, digits, '.', '_' and '-' names its folder itself. Of any other, characters that a disk may refuse
    become '-', and a digest of the id tells those apart that then look alike.
    """
    if _PLAIN_NAME.fullmatch(edit) and not reserved_result_name(edit):
        return edit
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", edit)[:80].strip(".-") or "edit"
    return f"{kept}-{json_digest(edit, 4)}"


def reserved_result_name(name: str) -> bool:
    """Whether a result of this name could be taken for one of the run's own files in its variant's folder.

    Capitals count as small letters, as some file systems take them.
    """
    return name.startswith(".") or name.lower().endswith(_OWN_SUFFIXES)


def visible(folder: Path, pattern: str) -> list[Path]:
    """What a folder holds by a pattern such as `*/*/meta.json`, in order, hidden names at any level left out."""
    found = (path.relative_to(folder) for path in folder.glob(pattern))
    return sorted(folder / path for path in found if not any(part.startswith(".") for part in path.parts))


def is_name(text: str) -> bool:
    """Whether a text names something visible directly in a folder, and leads nowhere else."""
    fits = 0 < len(text.encode()) <= NAME_BYTES
    return fits and not text.startswith(".") and not {"/", "\\", "\0"} & {*text}


def inside(run: Path, path: Path) -> Path:
    """The path, if it lies in the run folder with all that it directly and visibly holds, links followed.

    Raises:
        UserError: a link leads out of the run folder, or in a circle.
    """
    for part in (path, *visible(path, "*")):
        if not lies_inside(run, part):
            raise UserError(f"{part} leads out of {run}, whose files alone are read: copy what it stands for there.")
    return path


def lies_inside(folder: Path, path: Path) -> bool:
    """Whether a path leads into a folder, links followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a null byte
        return False


def reserved_variant_name(name: str) -> bool:
    """Whether a variant cannot be called so: the name, in any case, is one of the run folder's own files."""
    return any(fnmatchcase(name.casefold(), pattern) for pattern in _RESERVED)


def result_records(run: Path) -> list[Path]:
    """The records of all results of a run, by variant and edit."""
    return visible(run, f"*/*/{RECORD}")


def plans(run: Path) -> list[Path]:
    """The plans of all variants of a run."""
    return visible(run, f"*/{PLAN}")


def failure_file(result: Path) -> Path:
    """Where the sentence lies that says why there is no result."""
    return result.with_name(f"{result.name}.failed.json")


def failure_log(result: Path) -> Path:
    """Where the trace of an error lies that was not foreseen."""
    return result.with_name(f"{result.name}.failed.log")


def lock_file(result: Path, segment_start: int | None) -> Path:
    """What a process locks while it works on a result, or on a segment of it."""
    segment = "" if segment_start is None else f"@segment{segment_start}"  # no name of a result ends so
    return result.with_name(f".{result.name}{segment}.lock")


def plan_lock(variant: Path) -> Path:
    """What a process locks while it changes the plan of a variant."""
    return variant / f".{PLAN}.lock"


def process_lock(run: Path, group: str, place: int) -> Path:
    """What one of a group of processes locks for as long as it works on a run."""
    return run / f".{group}-{place}.lock"


def segment_folder(result: Path, digest: str) -> Path:
    """Where finished segments of a result lie until all are there."""
    return result.with_name(f".{digest}.pieces")


def segment_folders(variant: Path) -> dict[str, Path]:
    """All folders of finished segments of a variant, by the digest of their job."""
    return {folder.name.strip(".").removesuffix(".pieces"): folder for folder in variant.glob(".*.pieces")}


def state_files(run: Path) -> Iterator[Path]:
    """The small files that say what a run holds, beside its results."""
    yield run / RESULTS
    yield from visible(run, "*/*.json")
