"""Benchmarks that tell an editor what to do in words: IVEBench, OpenVE-Bench, EditVerseBench, UniEditBench."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fatezero.data.entry import Entry, Lines
from fatezero.data.foreign_manifests.lookups import first_there, tail_there, without_suffix
from fatezero.errors import UserError
from fatezero.system.terminal import shortened

_IVEBENCH_FOLDERS = ("ivebenchdb_mp4_short", "ivebenchdb_mp4_long")


def ivebench(path: Path, data: Sequence[Any], lines: Lines, folder: Path) -> Iterator[Entry]:
    """IVEBench's prompts (github.com/RyanChenYN/IVEBench): one edit for each source video.

    A source is a folder of frames or an mp4; a result has the source's name.
    """
    for index, values in enumerate(data):
        entry = Entry.at(path, values, lines, (index,))
        name = entry.text("src_video_name")
        stem = without_suffix(name)
        yield entry.restated(
            id=stem if entry.fields.get("id") is None else str(entry.fields["id"]),
            clip=first_there(folder, stem, name, *(f"{place}/{name}" for place in _IVEBENCH_FOLDERS)),
            video=stem,
            source_prompt=entry.text("source_prompt", ""),
            target_prompt=entry.text("target_prompt", ""),
            category=entry.text("category", ""),
            extras={**entry.fields, "instruction": entry.text("edit_prompt", "")},
        )


def openve_bench(path: Path, rows: Iterable[tuple[int, Mapping[str, str]]], folder: Path) -> Iterator[Entry]:
    """OpenVE-Bench's `benchmark_videos.csv`, or the table of results that is made of it.

    It states an instruction and no prompts, so text metrics are undefined. A result is named by `edited_result_path`
    where there is such a column, else as its source.

    Args:
        path: the table.
        rows: line and cells by column.
        folder: holds the videos; their paths begin with the benchmark's own name, so their longest tails count.
    """
    for line, row in rows:
        entry = Entry(path, f"line {line}", {name: cell.strip() for name, cell in row.items() if cell.strip()})
        if not entry.fields:
            continue
        source = entry.text("original_video")
        stem = without_suffix(PurePosixPath(source).name)
        yield entry.restated(
            id=stem,
            clip=tail_there(folder, source),
            video=entry.text("edited_result_path", stem),
            source_prompt="",
            target_prompt="",
            category=entry.text("edited_type", ""),
            extras={"instruction": entry.text("prompt", "")},
        )


def editverse_bench(path: Path, data: Mapping[str, Any], lines: Lines, folder: Path) -> Iterator[Entry]:
    """EditVerseBench's `test.json` (github.com/adobe-research/EditVerse): by number, an instruction with its videos.

    A result is `<number>/generate.mp4`.
    """
    for name, values in data.items():
        entry = Entry.at(path, values, lines, (str(name),))
        yield entry.restated(
            id=str(name),
            clip=tail_there(folder, entry.text("<video1>")),
            video=f"{name}/generate",
            source_prompt=entry.text("source_prompt", ""),
            target_prompt=entry.text("target_prompt", ""),
            category=entry.text("type", ""),
            extras={**entry.fields, "instruction": entry.text("<text>")},
        )


def unieditbench(path: Path, data: Sequence[Any], lines: Lines, folder: Path) -> Iterator[Entry]:
    """UniEditBench's metadata (github.com/wesar1/UniEditBench): images and videos with prompts and an instruction.

    A result is named by `edit_path` where there is one, else by the edit's id.

    Raises:
        UserError: the results are those of several models (`edit_model`), which are methods here.
    """
    models = dict.fromkeys(
        str(values["edit_model"]) for values in data if isinstance(values, dict) and "edit_model" in values
    )
    if len(models) > 1:
        raise UserError(
            f"{path} lists results of several models ({shortened(', '.join(models), 200)}): write a list for each, and "
            "score it as a method of its own."
        )
    for index, values in enumerate(data):
        entry = Entry.at(path, values, lines, (index,))
        name = str(entry.fields.get("id", index))
        yield entry.restated(
            id=name,
            clip=tail_there(folder, entry.text("path")),
            video=entry.text("edit_path", name),
            source_prompt=entry.text("source_prompt", ""),
            target_prompt=entry.text("target_prompt", ""),
            category=entry.text("edit_type", ""),
            extras={**entry.fields, "instruction": entry.text("edited_prompt", "")},
        )
