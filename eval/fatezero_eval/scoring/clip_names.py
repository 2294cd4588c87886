"""What clips are called in rows and on pages."""

from __future__ import annotations

from pathlib import Path

from fatezero.types import ClipSpec, EditRequest


def unit_name(request: EditRequest) -> str:
    """What the clip of an edit is called in rows: its source's name; without one the prompt, which samples share."""
    return clip_name(request.clip) if request.has_source else request.target_prompt or request.id


def clip_name(clip: ClipSpec) -> str:
    """Short name of a source clip: the end of its path, which of its videos, and where in it the frames begin."""
    name = "/".join(Path(clip.path).parts[-2:])
    stream = "" if clip.stream is None else f"#{clip.stream}"
    return f"{name}{stream}@{clip.start}" if clip.start else f"{name}{stream}"
