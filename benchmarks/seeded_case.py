"""One seeded edit, run again for each line of the input: what `against_revision.py` starts, once for each revision.

It uses only names that both revisions must have: those of `fatezero` itself, and of the random checkpoint.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import fatezero
from fatezero.benchmarking.random_checkpoint import WIDTHS, random_motion, random_pipeline
from fatezero.clips.video import read_clip
from fatezero.config import ModelOptions, RuntimeConfig
from fatezero.diffusion.checkpoint import Checkpoint
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.pipeline import FateZero
from fatezero.results import EditResult, Target
from fatezero.shipped import DEMO
from fatezero.types import Frames

BUDGET_GB = 8.0
WHOLE_CALLS = {"guidance_every": 1, "feature_reuse": 1}  # which earlier revisions always did, under no name
WARM_STEPS = 2  # of the first edit, which is not measured


@dataclass(frozen=True, kw_only=True)
class SeededCase:
    """What is edited, and how.

    Attributes:
        model: a random network by its size, or a checkpoint.
        size: side of the frames.
        frames: of the clip.
        steps: of inversion and edit.
        backend: where the source's attention comes from.
        key_frames: as in `MethodConfig`; () is what the checkpoint recommends.
        chunk: frames of one UNet call, with norms of each frame; None is the whole clip.
        motion: random motion modules stand in the UNet.
        threads: of the CPU.
    """

    model: str
    size: int
    frames: int
    steps: int
    backend: str
    key_frames: tuple[str, ...] = ()
    chunk: int | None = None
    motion: bool = False
    threads: int = 1


def editor_of(case: SeededCase) -> FateZero:
    """The networks of a case, on the CPU in float32."""
    runtime = RuntimeConfig(
        device="cpu",
        dtype="float32",
        backend=case.backend,  # type: ignore[arg-type]
        chunk=case.chunk,
        memory_gb=BUDGET_GB,
    )
    if case.model not in WIDTHS:
        return FateZero.load(case.model, runtime, report=lambda _: None)
    pipe = random_pipeline(case.model, torch.float32)  # type: ignore[arg-type]
    if case.motion:
        pipe.unet = random_motion(pipe.unet)
    backbone = UNetBackbone.of_pipeline(pipe, Checkpoint(ModelOptions(model=case.model), Path()), torch.device("cpu"))
    return FateZero(backbone, runtime, report=lambda _: None)


def frames_of(case: SeededCase) -> Frames:
    """The shipped clip, uint8 F,H,W,3."""
    return read_clip(replace(DEMO.clip, frames=case.frames, height=case.size, width=case.size)).frames


def run(editor: FateZero, case: SeededCase, frames: Frames) -> tuple[EditResult, float]:
    """The edit, and the seconds of processor time from frames to edited frames."""
    whole = {name: value for name, value in WHOLE_CALLS.items() if hasattr(editor.method, name)}
    method = replace(editor.method, steps=case.steps, **whole)  # type: ignore[arg-type]
    if case.key_frames:
        method = replace(method, key_frames=tuple(case.key_frames))  # type: ignore[arg-type]
    if case.chunk is not None:
        method = replace(method, norm_scope="frame")
    target = Target(prompt=DEMO.target_prompt, edited_words=DEMO.edited_words, method=method)
    started = time.process_time()
    inversion = editor.invert(frames, DEMO.source_prompt, [target], _unseen)
    result = editor.edit_inverted(inversion, target, _unseen)
    return result, time.process_time() - started


def _unseen(stage: str, done: int, total: int) -> None:
    """Shows no bar, which would be timed; earlier revisions take a function alone."""


def main() -> None:
    """Take a case as JSON and a file; for each line of the input, edit, save the latents there, say the seconds."""
    case, out = SeededCase(**json.loads(sys.argv[1])), Path(sys.argv[2])
    torch.set_num_threads(case.threads)
    editor, frames = editor_of(case), frames_of(case)
    run(editor, replace(case, steps=min(case.steps, WARM_STEPS)), frames)
    answer(fatezero.__path__[0])
    for _ in sys.stdin:
        result, seconds = run(editor, case, frames)
        np.save(out, result.latents.numpy())
        answer(str(seconds))


def answer(line: str) -> None:
    """Tell the process that started this one."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
