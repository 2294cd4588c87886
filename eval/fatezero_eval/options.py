"""How to evaluate, as values. Light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fatezero.errors import UserError

PICTUREBOOK_CLIP = "picturebook-clip"
"""The judge that FateZero ships. Nothing here knows where it lies: callers put its folder in place of this name."""


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How clips are scored.

    Attributes:
        metrics: names or patterns such as `warp_error*`; none stands for the default suite.
        judge: the CLIP: `picturebook-clip` (shipped; knows Picturebook's words only), a folder, an open_clip
            name and tag such as `ViT-B-32/openai`, or hf-hub:owner/name.
        flow: dis, farneback, raft_small or raft_large; not used for warping where the true motion is known.
        raft: safetensors file with RAFT's weights; by default torchvision's cache.
        dino: safetensors file with timm's vit_base_patch8_224.dino, for structure_distance.
        pick: folder of PickScore_v1, for pick_score.
        edit_mask: which mask divides inside from outside: the benchmark's, or the method's own.
        device: where networks run.
        processes: how many share the work.
        cache: folder for embeddings and flows, which runs may share; by default inside the output folder.
    """

    metrics: tuple[str, ...] = ()
    judge: str = PICTUREBOOK_CLIP
    flow: str = "dis"
    raft: Path | None = None
    dino: Path | None = None
    pick: Path | None = None
    edit_mask: Literal["given", "own"] = "given"
    device: Literal["cpu", "cuda"] = "cpu"
    processes: int = 1
    cache: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what does no work."""
        if self.processes < 1:
            raise UserError(f"processes is {self.processes}: it is at least 1.")


@dataclass(frozen=True, kw_only=True)
class EvaluateRun(ScoringOptions):
    """Score a run folder.

    Attributes:
        run: `runs/<name>`, with `<variant>/<edit id>/` inside.
        manifest: the benchmark, for the true masks, edits and motion.
        root: folder that the manifest's paths start from; the manifest's own by default.
        out: where rows go; by default `<run>/evaluation`.
    """

    run: Path
    manifest: Path | None = None
    root: str | None = None
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluateVideos(ScoringOptions):
    """Score anyone's videos.

    Attributes:
        method: what the videos' maker is called in the rows.
        videos: folder with one video or folder of frames for each edit (see `matching.match_videos`).
        manifest: the edits.
        root: folder that the manifest's paths start from; the manifest's own by default.
        out: where rows go.
        resize: score videos of another size, scaled to the source's.
        trim: score videos of another length, both cut to the shorter.
    """

    method: str
    videos: Path
    manifest: Path
    out: Path
    root: str | None = None
    resize: bool = False
    trim: bool = False
