"""What the files of a run folder are called: whoever writes or reads one finds its name here.

<run>/experiment.json                   what an ablation compares
<run>/results.parquet                   one row for each result
<run>/<variant>/plan.json               what was asked for
<run>/<variant>/<edit>/                 a result, whole: it appears with its record
<run>/<variant>/<edit>.failed.json      why there is no result
<run>/evaluation/                       scores, one row for each result and metric
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

EXPERIMENT = "experiment.json"
RESULTS = "results.parquet"
PLAN = "plan.json"
RECORD = "meta.json"  # of a result: its presence says that the result is whole
FRAMES, MASKS = "frames", "masks"
EDITED_VIDEO, MASK_VIDEO, SIDE_BY_SIDE_VIDEO = "edited.mp4", "masks.mp4", "side_by_side.mp4"
EVALUATION = "evaluation"
ROWS = "rows.jsonl"


def result_records(run: Path) -> list[Path]:
    """The records of all results of a run, by variant and edit."""
    return sorted(run.glob(f"*/*/{RECORD}"))


def plans(run: Path) -> list[Path]:
    """The plans of all variants of a run."""
    return sorted(run.glob(f"*/{PLAN}"))


def failure_file(result: Path) -> Path:
    """Where the sentence lies that says why there is no result."""
    return result.with_name(f"{result.name}.failed.json")


def lock_file(result: Path, segment_start: int | None) -> Path:
    """What a process locks while it works on a result, or on a segment of it."""
    segment = "" if segment_start is None else f".{segment_start}"
    return result.with_name(f".{result.name}{segment}.lock")


def segment_folder(result: Path, digest: str) -> Path:
    """Where finished segments of a result lie until all are there."""
    return result.with_name(f".{result.name}.{digest}.pieces")


def state_files(run: Path) -> Iterator[Path]:
    """The small files that say what a run holds, beside its results."""
    yield run / RESULTS
    yield from sorted(run.glob("*/*.json"))
