"""A result on disk: frames, videos, masks, pictures, and `meta.json` with everything needed to run it again."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import asdict
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from fatezero.clips.video import side_by_side, write_frames, write_video
from fatezero.data.layout import EDITED_VIDEO, FRAMES, MASK_VIDEO, MASKS, RECORD, SIDE_BY_SIDE_VIDEO
from fatezero.data.manifest import request_to_json
from fatezero.pipeline import FateZero
from fatezero.results import EditResult
from fatezero.runs.jobs import EditJob, local_digest
from fatezero.system.publishing import replacing
from fatezero.types import Clip, Frames

PACKAGES = ("fatezero-lab", "torch", "diffusers", "transformers", "lightning", "decord", "av", "numpy")
PICTURE_FRAMES = 8


def save_result(job: EditJob, result: EditResult, clip: Clip, editor: FateZero) -> tuple[str, ...]:
    """Write a result; the job's folder appears whole, with `meta.json` in it, or not at all.

    Args:
        job: what was to be done; an older result in its folder is replaced.
        result: the edited clip.
        clip: the source as it was read.
        editor: the editor that made it.

    Returns:
        One sentence for each thing done to the file's own frames, and one on what became of its sound.

    Raises:
        UserError: if the folder cannot be written.
    """
    with replacing(job.folder) as partial:
        partial.mkdir()
        write_frames(partial / FRAMES, result.frames)
        written = write_video(partial / EDITED_VIDEO, result.frames, clip.timing, sound=clip.sound)
        write_video(partial / SIDE_BY_SIDE_VIDEO, side_by_side(_panels(result)), clip.timing)
        if result.masks is not None:
            grey = np.rint(result.masks * 255).astype(np.uint8)
            write_frames(partial / MASKS, grey)
            write_video(partial / MASK_VIDEO, np.repeat(grey[..., None], 3, axis=-1), clip.timing)
        for index, (word, attention) in enumerate(result.attention.items()):
            picture = attention_picture(result.source_frames, attention)
            Image.fromarray(picture).save(partial / f"attention_{index}_{_file_safe(word)}.png")
        meta = describe(job, result, clip, editor, written) | _whole(partial)
        (partial / RECORD).write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return (*clip.notes, *written)


def _whole(folder: Path) -> dict[str, int]:
    """Number and bytes of a result's files, the record aside: by them a copy is known to be whole."""
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    return {"files": len(sizes), "bytes": sum(sizes)}


def describe(
    job: EditJob, result: EditResult, clip: Clip, editor: FateZero, written: tuple[str, ...]
) -> dict[str, Any]:
    """What `meta.json` says, with the sentences that writing the edited video left."""
    backbone, checkpoint = editor.backbone, editor.backbone.checkpoint
    return {
        "digest": job.digest,
        "frames_digest": blake2b(np.ascontiguousarray(result.frames).data, digest_size=16).hexdigest(),
        "request": request_to_json(job.request),
        "clip_digest": local_digest(job.request.clip.path),
        "config": asdict(job.method),
        "runtime": asdict(editor.runtime)
        | {
            "device": str(backbone.device),
            "dtype": str(backbone.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        },
        "seed": job.request.seed,
        "frames": len(result.frames),
        "fps": clip.fps,
        "times": clip.timing if isinstance(clip.timing, tuple) else None,
        "sound": written[-1] if clip.sound else None,
        "source_notes": [*clip.notes, *written],
        "checkpoint": {
            "name": backbone.name,
            "digest": checkpoint.digest,
            "motion_adapter": checkpoint.adapter.name if checkpoint.adapter else None,
            **checkpoint.additions.record(),
            "schedule": checkpoint.schedule_owner,
        },
        "source_attention": asdict(result.choice) if result.choice else None,
        "kept_bytes": result.bytes_kept,
        "timings": result.seconds,
        "peak_memory_bytes": result.peak_memory_bytes,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that make the result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def attention_picture(frames: Frames, attention: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Where a word looks: frames in the upper row, its attention over them in the lower.

    Args:
        frames: uint8 F,H,W,3.
        attention: float F,m,n in [0, 1].

    Returns:
        uint8 2H,(k * W),3 of k evenly spaced frames.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, PICTURE_FRAMES).round().astype(int))
    return np.concatenate(
        [
            np.concatenate([frames[i] for i in chosen], axis=1),
            np.concatenate([_heat(frames[i], attention[i]) for i in chosen], axis=1),
        ]
    )


def _heat(frame: npt.NDArray[np.uint8], attention: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    height, width = frame.shape[:2]
    enlarged = cv2.resize(np.rint(attention * 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    colours = cv2.cvtColor(cv2.applyColorMap(enlarged, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    mixed: npt.NDArray[np.uint8] = cv2.addWeighted(frame, 0.35, colours, 0.65, 0)
    return mixed


def _panels(result: EditResult) -> list[tuple[str, Frames]]:
    return [(result.source_prompt, result.source_frames), (result.target.prompt, result.frames)]


def _file_safe(word: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", word) or "word"
