"""TGVE 2023 (LOVEU track 4): its table, and the configurations of its baseline, which are Tune-A-Video's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from fatezero.data.entry import Entry, Lines
from fatezero.data.foreign_manifests.lookups import first_there, is_there, tail_there
from fatezero.system.terminal import quoted

_SPLITS = {"davis": "DAVIS_480p", "youtube": "youtube_480p", "videvo": "videvo_480p"}
_CAPTIONS = {
    "style": "Style Change Caption",
    "object": "Object Change Caption",
    "background": "Background Change Caption",
    "multiple": "Multiple Changes Caption",
}
_CLIPS = ("480p_frames", "480p_videos")  # of a split
_IMAGES = (".jpg", ".jpeg", ".png")


def tgve(path: Path, rows: Iterable[tuple[int, Mapping[str, str]]], folder: Path) -> Iterator[Entry]:
    """The table of TGVE 2023, saved as csv: a row for each video, below headings such as "DAVIS Videos:".

    A result is `<split>/<video>/<style, object, background or multiple>/%05d.jpg`, or as the baseline writes it
    `<split>/<video>/results/<edit>/<prompt>.gif`.

    Args:
        path: the table; other columns than its captions are passed over.
        rows: line and cells by column.
        folder: the folder that holds the splits' folders.
    """
    split = None
    for line, row in rows:
        entry = Entry(path, f"line {line}", {name: cell.strip() for name, cell in row.items() if cell.strip()})
        if not entry.fields:
            continue
        video = entry.text("Video name")
        if set(entry.fields) == {"Video name"}:
            split = _SPLITS.get(video.split()[0].lower())
            if split is None:
                raise entry.error("Video name", f"{quoted(video)} has no captions and is no known heading.")
            continue
        if split is None:
            raise entry.error("Video name", 'a heading such as "DAVIS Videos:" must come before the first video.')
        frames, videos = _CLIPS
        clip = first_there(folder, f"{split}/{frames}/{video}", f"{split}/{video}", f"{split}/{videos}/{video}.mp4")
        for edit, column in _CAPTIONS.items():
            yield entry.restated(
                id=f"{split}.{video}.{edit}",
                clip=clip,
                source_prompt=entry.text("Our GT caption"),
                target_prompt=entry.text(column),
                category=edit,
                video=_results(f"{split}/{video}", edit, entry.text(column)),
                extras={"split": split, "video": video, "edit": edit},
            )


def tune_a_video(path: Path, data: Mapping[str, Any], lines: Lines, folder: Path) -> Iterator[Entry]:
    """Tune-A-Video's configurations: the clip that is tuned on, and an edit for each prompt of the validation.

    `prompts` is a list, or in TGVE's a mapping of style, object, background and multiple. Frames are stretched to the
    stated size, and there are at most as many as are stated, as in the original. How Tune-A-Video is tuned and
    sampled is its own affair, so no settings follow from it.

    Args:
        path: the configuration.
        data: what it holds.
        lines: line numbers of the file.
        folder: holds the clip; its path is written from where Tune-A-Video is run, so its longest tail counts.
    """
    train = Entry.at(path, data["train_data"], lines, ("train_data",))
    validation = Entry.at(path, data["validation_data"], lines, ("validation_data",))
    stated = train.text("video_path")
    clip, ignored = _selection(train, tail_there(folder, stated), folder)
    for name, prompt in _prompts(validation).items():
        yield validation.restated(
            id=f"{PurePosixPath(stated).stem}.{name}",
            clip=clip,
            source_prompt=train.text("prompt"),
            target_prompt=prompt,
            category=name if name in _CAPTIONS else "",
            seed=data.get("seed") or 0,
            video=_results_of(stated, name, prompt),
            extras={"ignored": ignored} if ignored else {},
        )


def _prompts(validation: Entry) -> dict[str, str]:
    """The targets by the name of their edit, or by their position."""
    if isinstance(validation.fields.get("prompts"), dict):
        named = validation.nested("prompts", validation.mapping("prompts"))
        return {str(name): named.text(name) for name in named.fields}
    return {str(index): prompt for index, prompt in enumerate(validation.words("prompts"))}


def _results(video: str, edit: str, prompt: str) -> list[str]:
    """Where a submission to TGVE has an edit of a video, and where the baseline's script writes it."""
    return [f"{video}/{edit}", f"{video}/results/{edit}/{prompt}"]


def _results_of(clip: str, name: str, prompt: str) -> list[str]:
    """The same by the clip's path; beyond TGVE, Tune-A-Video's samples are files named by their prompts."""
    parts = PurePosixPath(clip).parts
    if name not in _CAPTIONS:
        return [prompt.replace("/", "-")]
    split = (parts[-3],) if len(parts) > 2 and parts[-2] in _CLIPS else ()
    return _results("/".join((*split, PurePosixPath(clip).stem)), name, prompt)


def _selection(train: Entry, path: str, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The frames that Tune-A-Video, or TGVE's version of it, takes; and what is stated of them in vain."""
    counted = "n_sample_frames" if "n_sample_frames" in train.fields else "num_frames"
    sampled = "sample_frame_rate" if "sample_frame_rate" in train.fields else "frame_rate"
    clip = {
        "path": path,
        "start": train.number("sample_start_idx", int, 0),
        "frames": train.number(counted, int, None),
        "stride": train.number(sampled, int, 1),
        "height": train.number("height", int, None),
        "width": train.number("width", int, None),
        "fit": "stretch",
    }
    left = _images(folder / path)
    asked = clip["frames"]
    if asked is None or left is None or len(range(clip["start"], left, max(clip["stride"], 1))) >= asked:
        return clip, []
    return clip | {"frames": None}, [f"{counted}: the clip has {left} frames, so fewer than {asked} are left to take"]


def _images(clip: Path) -> int | None:
    """How many frames a folder of images has; None of any other clip."""
    return sum(file.suffix.lower() in _IMAGES for file in clip.iterdir()) if is_there(clip) and clip.is_dir() else None
