"""What a truth states that lies beside a clip, cut to the clip's frames: masks, true edits, known motion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fatezero.clips.video import probe
from fatezero.errors import UserError
from fatezero.types import ClipSpec, CompanionSpec, EditRequest, MaskSpec
from fatezero_eval.networks.given_flow import GivenFlow, read_flow


def companions_of(request: EditRequest, truth: Mapping[str, Any]) -> dict[str, CompanionSpec]:
    """What a truth states that lies beside a request's clip: its masks and its "true_edit", each if known."""
    contents: dict[str, str | MaskSpec] = {}
    if "clip" in truth:
        contents["true_edit"] = str(truth["clip"])
    if "mask" in truth or "mask_rle" in truth:
        runs = tuple(truth["mask_rle"]) if "mask_rle" in truth else None
        path, objects = truth.get("mask", ""), tuple(truth.get("objects", ()))
        contents["mask"] = MaskSpec(path=str(path), objects=objects, runs=runs)
    if "target_mask" in truth:
        contents["target_mask"] = MaskSpec(path=str(truth["target_mask"]))
    return {name: CompanionSpec(clip=request.clip, content=content) for name, content in contents.items()}


def flow_between(file: Path, clip: ClipSpec) -> GivenFlow:
    """The known motion from each of the frames that are taken of a clip to the next.

    Raises:
        UserError: it cannot be read, or is not of the clip's frames.
    """
    info = probe(clip)
    whole = read_flow(file)
    if len(whole.forward) >= info.file_frames:
        raise UserError(
            f"{file} has {len(whole.forward)} pairs, {clip.path} only {info.file_frames} frames: give its own flow."
        )
    flow = whole.between(info.indices)
    flow.check(info.frames, (info.height, info.width))
    return flow
