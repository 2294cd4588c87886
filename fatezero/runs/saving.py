"""A result on disk: frames, videos, masks, pictures, and `meta.json` with everything needed to run it again."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fatezero.data.layout import RECORD
from fatezero.data.manifest import request_to_json
from fatezero.pipeline import FateZero
from fatezero.results import EditResult
from fatezero.runs.jobs import EditJob, local_digest
from fatezero.system.publishing import replacing
from fatezero.types import Clip
from fatezero.viewing.result_files import write_edit

PACKAGES = ("fatezero-lab", "torch", "diffusers", "transformers", "lightning", "decord", "av", "numpy")


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
        written = write_edit(partial, clip, result.frames, result.prompts, result.masks, result.attention)
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
