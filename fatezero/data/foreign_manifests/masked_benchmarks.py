"""Benchmarks that say where their edits belong: PIE-Bench, FiVE-Bench and EditBoard."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fatezero.data.entry import Entry, Lines
from fatezero.data.foreign_manifests.lookups import first_there, is_there, short_ids, tail_there

FIVE_LISTS = "edit_prompt"  # folder of FiVE-Bench's lists, beside its images and masks
_PIE_CATEGORIES = {
    "0": "random",
    "1": "change object",
    "2": "add object",
    "3": "delete object",
    "4": "change content",
    "5": "change pose",
    "6": "change colour",
    "7": "change material",
    "8": "change background",
    "9": "change style",
}
_FIVE_CATEGORIES = {
    "1": "replace object, rigid",
    "2": "replace object, non-rigid",
    "3": "change colour",
    "4": "change material",
    "5": "add object",
    "6": "remove object",
}


def pie(path: Path, data: Mapping[str, Any]) -> Iterator[Entry]:
    """PIE-Bench's `mapping_file.json`: by id, an image, prompts with the changed words in brackets, a mask.

    `truth["mask_rle"]` holds start and length of each run of edited pixels in a 512 x 512 image, row by row. A result
    is an image at `annotation_images/<image_path>`, or where `annotation_images` itself is the folder of results; its
    suffix may be another.
    """
    for name, values in data.items():
        entry = Entry.at(path, values, {}, (str(name),))
        source, target = entry.text("original_prompt"), entry.text("editing_prompt")
        # "cat dog" names the word in the source and the one in the target.
        blended = entry.text("blended_word", "").split()
        kind = str(entry.fields.get("editing_type_id", ""))
        image, mask = entry.text("image_path"), entry.fields.get("mask")
        result = image.removesuffix(PurePosixPath(image).suffix)
        yield entry.restated(
            id=name,
            clip=f"annotation_images/{image}",
            video=[f"annotation_images/{result}", result],
            source_prompt=_without_brackets(source),
            target_prompt=_without_brackets(target),
            edited_words=blended[:1] or _in_brackets(source),
            target_words=blended[1:] or _in_brackets(target),
            category=_PIE_CATEGORIES.get(kind, kind),
            truth={} if mask is None else {"mask_rle": mask},
            extras={"instruction": entry.text("editing_instruction", "")},
        )


def five_bench(path: Path, data: Sequence[Any], lines: Lines, folder: Path) -> Iterator[Entry]:
    """One of FiVE-Bench's lists, `edit_prompt/edit<1 to 6>_FiVE.json` (github.com/MinghanLi/FiVE-Bench).

    Frames are in `images/<video_name>`, masks in `bmasks/<video_name>`, a result in `<video_name>/<save_dir>`, or as
    the benchmark's own editors write it in `<video_name>/<kind>_<first 20 letters of the target>.mp4`. An edit's id is
    the list's name with the position in it, by which the benchmark's own scores go.
    """
    for index, values in enumerate(data):
        entry = Entry.at(path, values, lines, (index,))
        name = entry.text("video_name")
        source, target = entry.text("source_prompt"), entry.text("target_prompt")
        kind, masks = str(entry.fields.get("editing_type_id", "")), f"bmasks/{name}"
        yield entry.restated(
            id=f"{path.stem}.{index}",
            clip=first_there(folder, f"images/{name}", f"videos/{name}.mp4"),
            video=[f"{name}/{entry.text('save_dir', '')}", f"{name}/{kind}_{target[:20]}"],
            source_prompt=_without_brackets(source),
            target_prompt=_without_brackets(target),
            edited_words=_in_brackets(source),
            target_words=_in_brackets(target),
            category=_FIVE_CATEGORIES.get(kind, kind),
            truth={"mask": masks} if is_there(folder / masks) else {},
            extras=dict(entry.fields),
        )


def editboard(path: Path, rows: Iterable[tuple[int, Mapping[str, str]]], folder: Path) -> Iterator[Entry]:
    """EditBoard's script (github.com/Samchen2003/EditBoard): folders of frames and of masks, and prompts.

    Only the edited video is always stated; its last name is the edit's id, or its path where two share that.

    Args:
        path: the table.
        rows: line and cells by column.
        folder: holds the folders; their paths are written from where EditBoard is run, so their longest tails count.
    """
    lines = (
        Entry(path, f"line {line}", {name: c.strip() for name, c in row.items() if c.strip()}) for line, row in rows
    )
    entries = [entry for entry in lines if entry.fields]
    names = short_ids([entry.text("edited_video_path") for entry in entries], last=True)
    for name, entry in zip(names, entries, strict=True):
        edited, source = entry.text("edited_video_path"), entry.text("original_video_path", "")
        mask = entry.text("semantic_mask_path", "") if source else ""
        yield entry.restated(
            id=name,
            clip=tail_there(folder, source) if source else None,
            video=edited,
            source_prompt=entry.text("source_prompt", ""),
            target_prompt=entry.text("target_prompt", ""),
            truth={"mask": tail_there(folder, mask)} if mask else {},
        )


def _without_brackets(prompt: str) -> str:
    return " ".join(re.sub(r"[\[\]]", "", prompt).split())


def _in_brackets(prompt: str) -> list[str]:
    return " ".join(re.findall(r"\[(.*?)\]", prompt)).split()
