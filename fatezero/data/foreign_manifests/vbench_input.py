"""VBench's custom input (github.com/Vchitect/VBench, `--mode custom_input`): videos and their prompts, no sources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from fatezero.data.entry import Entry
from fatezero.data.files import open_local
from fatezero.data.foreign_manifests.lookups import VIDEO_SUFFIXES, short_ids, without_suffix


def holds_videos(folder: Path) -> bool:
    """Whether video files lie directly in a folder."""
    return bool(_videos(folder))


def vbench_folder(folder: Path) -> Iterator[Entry]:
    """A folder of videos named by their prompts, `<prompt>.mp4` or `<prompt>-0.mp4` for several samples."""
    videos = _videos(folder)
    for edit, name in zip(short_ids(videos, last=False), videos, strict=True):
        prompt = re.sub(r"-\d+$", "", without_suffix(name), flags=re.ASCII)
        yield _edit(Entry(folder, f"video {name!r}", {}), edit, name, prompt)


def is_prompt_file(data: Mapping[Any, Any]) -> bool:
    """Whether a mapping gives videos their prompts."""
    return bool(data) and all(
        isinstance(name, str) and PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES and isinstance(prompt, str)
        for name, prompt in data.items()
    )


def vbench_prompts(path: Path, data: Mapping[str, str]) -> Iterator[Entry]:
    """VBench's `--prompt_file`: a prompt by the path of each video."""
    for edit, (name, prompt) in zip(short_ids([*data], last=False), data.items(), strict=True):
        yield _edit(Entry(path, f"entry {name!r}", {}), edit, name, prompt)


def _edit(entry: Entry, edit: str, video: str, prompt: str) -> Entry:
    return entry.restated(id=edit, clip=None, source_prompt="", target_prompt=prompt, video=video)


def _videos(folder: Path) -> list[str]:
    open_local(folder)
    files = (path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
    return sorted(path.name for path in files if path.suffix.lower() in VIDEO_SUFFIXES)
