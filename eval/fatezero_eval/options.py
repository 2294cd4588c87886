"""How to evaluate, as values. Light to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fatezero.errors import UserError
from fatezero.system.terminal import quoted

PICTUREBOOK_CLIP = "picturebook-clip"
"""The judge that FateZero ships. Nothing here knows where it lies: callers put its folder in place of this name."""


RESERVED_METHODS = ("source", "no edit", "truth", "true edit")
"""What tables and pages call other rows than a method's."""


@dataclass(frozen=True, kw_only=True)
class AskingOptions:
    """Who answers the questions of the metrics vlm_*, and how they are put.

    Attributes:
        vlm: an OpenAI-compatible address, http(s)://host:port/v1, or a folder with a vision-language model of
            transformers; by default the judge answers those questions whose answers are captions.
        vlm_model: what the server at the address calls the model.
        vlm_answers: how often each question is put; the spread of the answers is scored, too.
        vlm_temperature: 0 takes the likeliest words; null leaves it to the server or the folder.
        vlm_at_once: how many questions a server gets at the same time.
        vlm_timeout: seconds that a server has for an answer.
        vlm_key: the environment variable that holds the server's key, if it wants one.
    """

    vlm: str | None = None
    vlm_model: str | None = None
    vlm_answers: int = 1
    vlm_temperature: float | None = 0.0
    vlm_at_once: int = 4
    vlm_timeout: float = 120.0
    vlm_key: str = "FATEZERO_VLM_KEY"

    @property
    def is_address(self) -> bool:
        """Whether a server answers."""
        return self.vlm is not None and "://" in self.vlm

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        for name, least in (("vlm_answers", self.vlm_answers), ("vlm_at_once", self.vlm_at_once)):
            if least < 1:
                raise UserError(f"{name} is {least}: it is at least 1.")
        if not 0 < self.vlm_timeout < 86_400:
            raise UserError(f"vlm_timeout is {self.vlm_timeout}: it is between 0 and 86,400 seconds.")
        if self.vlm_temperature is not None and not 0 <= self.vlm_temperature <= 2:
            raise UserError(f"vlm_temperature is {self.vlm_temperature}: it is between 0 and 2, or null.")
        if self.is_address != bool(self.vlm_model):
            raise UserError(
                "--vlm with an address (http://host:8000/v1) and --vlm-model, what its server calls the model, go "
                "together."
            )


@dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """Which metrics, and what they look through.

    Attributes:
        metrics: names or patterns such as `warp_error*`; none stands for the default suite.
        judge: the CLIP: `picturebook-clip` (shipped; knows Picturebook's words only), a folder, an open_clip
            name and tag such as `ViT-B-32/openai`, or hf-hub:owner/name.
        flow: dis, farneback, raft_small or raft_large; not used for warping where the true motion is known.
        raft: safetensors file with RAFT's weights; by default torchvision's cache.
        dino: safetensors file with a DINO of timm's, version 1 or 2: vit_base_patch8_224.dino for structure_distance,
            vit_base_patch16_224.dino for subject_consistency.
        aesthetic: safetensors file with LAION's linear head for the judge, for aesthetic_quality.
        pick: folder of PickScore_v1, for pick_score.
        niqe: modelparameters.mat of NIQE's authors, for niqe.
        video_text: folder of an X-CLIP or a VideoPrism of transformers, for video_text_alignment.
        edit_mask: which mask divides inside from outside: the benchmark's, or the method's own.
    """

    metrics: tuple[str, ...] = ()
    judge: str = PICTUREBOOK_CLIP
    flow: str = "dis"
    raft: Path | None = None
    dino: Path | None = None
    aesthetic: Path | None = None
    pick: Path | None = None
    niqe: Path | None = None
    video_text: Path | None = None
    edit_mask: Literal["given", "own"] = "given"


@dataclass(frozen=True, kw_only=True)
class ScoringOptions(MetricOptions):
    """How clips are scored.

    Attributes:
        device: where networks run.
        processes: how many share the work.
        threads: CPU threads of each process. One by default: sums are rounded otherwise by another number of
            threads; more processes give the same numbers.
        cache: folder for embeddings, flows and answers, which runs may share; by default inside the output folder.
        asking: who answers questions.
        video_network: folder of a VideoMAE, V-JEPA 2, X-CLIP or VideoPrism of transformers, for distances between each
            method's clips and the source clips, and between them and the true edits.
    """

    device: Literal["cpu", "cuda"] = "cpu"
    processes: int = 1
    threads: int = 1
    cache: Path | None = None
    asking: AskingOptions = AskingOptions()
    video_network: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what does no work."""
        for name in ("processes", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it is at least 1.")


@dataclass(frozen=True, kw_only=True)
class EvaluateRun(ScoringOptions):
    """Score a run folder.

    Attributes:
        run: `runs/<name>`, with `<variant>/<edit id>/` inside.
        manifest: the benchmark, for the true masks, edits and motion; a path, or an address in a store.
        root: folder that the manifest's paths start from; by default the one that the run was made with, if that
            was of this manifest, else the manifest's own.
        out: where rows go; by default `<run>/evaluation`.
    """

    run: Path
    manifest: str | Path | None = None
    root: str | None = None
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluateVideos(ScoringOptions):
    """Score anyone's videos.

    Attributes:
        method: what the videos' maker is called in the rows.
        videos: folder with one video or folder of frames for each edit (see `matching.match_videos`).
        manifest: the edits; a path, or an address in a store.
        root: folder that the manifest's paths start from; the manifest's own by default.
        out: where rows go.
        categories: score edits of these categories alone, such as one of PIE-Bench's kinds; all by default.
        resize: score videos of another size, scaled to the source's.
        trim: score videos of another length, both cut to the shorter.
    """

    method: str
    videos: Path
    manifest: str | Path
    out: Path
    root: str | None = None
    categories: tuple[str, ...] = ()
    resize: bool = False
    trim: bool = False

    def __post_init__(self) -> None:
        """Refuse a name that other rows have."""
        super().__post_init__()
        check_method_name(self.method)


def check_method_name(name: str) -> None:
    """See to it that someone else's method can stand in tables.

    Raises:
        UserError: other rows have the name, or it is empty.
    """
    if name.strip().casefold() in RESERVED_METHODS or not name.strip():
        raise UserError(
            f"A method cannot be called {quoted(name)}: tables have other rows of that name; choose another."
        )
