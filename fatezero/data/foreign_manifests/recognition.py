"""Tells benchmarks apart by their files, keys and columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fatezero.data.entry import Entry, Lines
from fatezero.data.foreign_manifests.davis_folders import davis, davis_list, davis_of_list, is_davis, is_davis_list
from fatezero.data.foreign_manifests.fatezero_manifests import fatezero_bench, fatezero_config, refuse_tuning_config
from fatezero.data.foreign_manifests.instruction_benchmarks import (
    editverse_bench,
    ivebench,
    openve_bench,
    unieditbench,
)
from fatezero.data.foreign_manifests.masked_benchmarks import FIVE_LISTS, editboard, five_bench, pie
from fatezero.data.foreign_manifests.tgve_manifests import tgve, tune_a_video
from fatezero.data.foreign_manifests.v2vbench_index import v2vbench
from fatezero.data.foreign_manifests.vbench_input import holds_videos, is_prompt_file, vbench_folder, vbench_prompts
from fatezero.errors import UserError

Rows = Iterable[tuple[int, Mapping[str, str]]]


def home_of(manifest: Path) -> Path:
    """The folder that a benchmark's paths start from: mostly the one that holds its list."""
    if manifest.is_dir():
        return manifest
    if is_davis_list(manifest):
        return davis_of_list(manifest)
    return manifest.parent.parent if manifest.parent.name == FIVE_LISTS else manifest.parent


def of_folder(folder: Path) -> Iterator[Entry]:
    """The edits of a benchmark that is a folder: DAVIS, or videos named by their prompts."""
    return vbench_folder(folder) if not is_davis(folder) and holds_videos(folder) else davis(folder)


def of_list_file(path: Path, folder: Path | str) -> Iterator[Entry] | None:
    """The edits of a list of names; None if it is no benchmark's."""
    return davis_list(path, _here(path, folder)) if is_davis_list(path) else None


def of_mapping(path: Path, data: Mapping[Any, Any], lines: Lines, folder: Path | str) -> Iterator[Entry] | None:
    """The edits of a benchmark whose manifest is a mapping; None if it is none that is known.

    Raises:
        UserError: it is a configuration that holds no edits.
    """
    refuse_tuning_config(path, data)
    if "dataset_config" in data:
        return fatezero_config(path, data, lines)
    if {"train_data", "validation_data"} <= data.keys():
        return tune_a_video(path, data, lines, _here(path, folder))
    if "data" in data:
        return v2vbench(path, data, lines, _here(path, folder))
    return _of_named_entries(path, data, lines, folder)


def _of_named_entries(path: Path, data: Mapping[Any, Any], lines: Lines, folder: Path | str) -> Iterator[Entry] | None:
    if is_prompt_file(data):
        return vbench_prompts(path, data)
    if _have(data.values(), "editing_prompt"):
        return pie(path, data)
    if _have(data.values(), "<text>"):
        return editverse_bench(path, data, lines, _here(path, folder))
    return fatezero_bench(path, data, lines) if _have(data.values(), "target") else None


def of_entries(path: Path, data: list[Any], lines: Lines, folder: Path | str) -> Iterator[Entry] | None:
    """The edits of a benchmark whose manifest is a list; None if it is none that is known."""
    if _have(data, "video_name", "save_dir"):
        return five_bench(path, data, lines, _here(path, folder))
    if _have(data, "src_video_name"):
        return ivebench(path, data, lines, _here(path, folder))
    if _have(data, "path", "edit_type"):
        return unieditbench(path, data, lines, _here(path, folder))
    return None


def of_table(path: Path, columns: Iterable[str], rows: Rows, folder: Path | str) -> Iterator[Entry] | None:
    """The edits of a benchmark whose manifest is a table; None if it is none that is known."""
    named = {*columns}
    if "Video name" in named:
        return tgve(path, rows, _here(path, folder))
    if "edited_video_path" in named:
        return editboard(path, rows, _here(path, folder))
    return openve_bench(path, rows, _here(path, folder)) if {"original_video", "edited_type"} <= named else None


def _have(entries: Iterable[Any], *keys: str) -> bool:
    """Whether an entry has these keys; the reader says of the others what they lack."""
    return any(isinstance(entry, dict) and {*keys} <= entry.keys() for entry in entries)


def _here(path: Path, folder: Path | str) -> Path:
    """The folder of a benchmark whose manifest leaves open what its files are called."""
    if isinstance(folder, str):
        raise UserError(f"{path}: files of this benchmark are looked up by name, so copy {folder} to this machine.")
    return folder
