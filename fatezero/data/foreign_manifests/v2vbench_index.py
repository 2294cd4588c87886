"""V2VBench (github.com/wenhao728/awesome-diffusion-v2v, doc/README.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fatezero.data.entry import Entry, Lines
from fatezero.data.foreign_manifests.lookups import VIDEO_SUFFIXES, first_there


def v2vbench(path: Path, data: Mapping[str, Any], lines: Lines, folder: Path) -> Iterator[Entry]:
    """V2VBench's index (`config.yaml`): `data`, a list of videos with a list of edits each.

    A source is a video file or a folder of frames named by its `video_id`; a result is `<video_id>/<edit's index>`.
    """
    for number, values in enumerate(Entry(path, "line 1", data).items("data")):
        video = Entry.at(path, values, lines, ("data", number))
        name = video.text("video_id")
        places = (f"frames/{name}", name, f"videos/{name}", f"source_videos/{name}")
        files = (f"{place}{suffix}" for place in places[1:] for suffix in VIDEO_SUFFIXES)
        clip = first_there(folder, *places, *files)
        for index, stated in enumerate(video.items("edit")):
            edit = Entry.at(path, stated, lines, ("data", number, "edit", index))
            yield edit.restated(
                id=f"{name}.{index}",
                clip=clip,
                source_prompt=video.text("prompt", ""),
                target_prompt=edit.text("prompt"),
                video=f"{name}/{index}",
                extras={**edit.fields, "video_id": name, "edit_id": index},
            )
