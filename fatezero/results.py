"""What the pipeline takes and gives: an edit that is asked for, a clip's inversion, an edited clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fatezero.attention.mask_layers import MaskLayers, mask_layers
from fatezero.attention.prompts import read_weights
from fatezero.config import MethodConfig
from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero.types import Frames

if TYPE_CHECKING:  # jobs name their targets without waiting for torch
    from torch import Tensor

    from fatezero.diffusion.inversion import Trajectory
    from fatezero.source_attention.budget import BackendChoice

Basis = tuple[object, ...]  # see `Target.basis`


def as_words(words: Sequence[str], name: str) -> tuple[str, ...]:
    """Several words, as `name` takes them.

    Raises:
        UserError: for a single text, which would be taken apart into letters.
    """
    if isinstance(words, str):
        raise UserError(f"{name} is the text {quoted(words)}: give words, such as ({quoted(words)},).")
    return tuple(words)


def with_weights(prompt: str, method: MethodConfig) -> tuple[str, MethodConfig]:
    """A target prompt without the weights in it, which `prompt_weights` asks to read, and the method with them.

    Raises:
        UserError: for brackets that are no weight, and weights that the method cannot give or has already.
    """
    if not method.prompt_weights:
        return prompt, method
    plain, weights = read_weights(prompt)
    fusion = method.fusion
    if weights and fusion is None:
        raise UserError(
            f"The prompt {quoted(prompt)} weighs words, which fusion does: turn fusion on, or take them out."
        )
    twice = weights.keys() & (fusion.reweight.keys() if fusion else ())
    if twice:
        raise UserError(f"{quoted(min(twice))} is weighed in the prompt and in fusion.reweight: do it in one place.")
    if fusion is not None:
        fusion = replace(fusion, reweight={**fusion.reweight, **weights})
    return plain, replace(method, fusion=fusion, prompt_weights=False)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One edit of a clip.

    Attributes:
        prompt: describes the clip as it should become.
        edited_words: words of the source prompt that the edit changes; without any, nothing is blended.
        target_words: words of this prompt that stand for them; needed to blend latents by both.
        seed: seed of a sampled posterior, and of SDEdit's and FlowEdit's noise.
        method: the configuration.
    """

    prompt: str
    edited_words: tuple[str, ...] = ()
    target_words: tuple[str, ...] = ()
    seed: int = 0
    method: MethodConfig

    def __post_init__(self) -> None:
        for name in ("edited_words", "target_words"):
            as_words(getattr(self, name), name)

    @property
    def basis(self) -> Basis:
        """What the inversion depends on: targets of one clip and source prompt that agree in it share one.

        Unless they make masks at different layers: see `mask_layers`.
        """
        method = self.method
        return (
            method.steps,
            method.key_frames,
            method.key_frames_min_width,
            method.norm_scope,
            self.seed if method.posterior == "sample" else None,
            method.sdedit_strength,
            method.flow_edit is not None,
            method.prompt_contexts,
            method.solver_order,
            method.feature_reuse,
            method.window_frames,
            method.window_overlap,
            method.autoencoder_tiling,
        )

    @property
    def mask_layers(self) -> MaskLayers | None:
        """The layers whose maps masks are made of; None where the edit makes none."""
        return mask_layers(self.method.blending) if self.method.blending else None


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """A clip carried to noise, ready for its edits.

    Attributes:
        source_frames: uint8 F,H,W,3.
        prompt: the source prompt.
        basis: the part of the edits' configuration that it was made with.
        mask_layers: whose cross-attention was kept for masks; None kept none.
        clean: F,C,h,w latents of the frames.
        trajectory: None where no edit needs one (SDEdit, FlowEdit).
        choice: how the source's attention is kept; None where no edit needs it.
        chunk: frames per network call, as in `RuntimeConfig`.
        middle: index of the whole clip's middle frame among these, where they are a segment of it.
        seconds: time of encoding and inverting, by stage.
    """

    source_frames: Frames
    prompt: str
    basis: Basis
    mask_layers: MaskLayers | None
    clean: Tensor
    trajectory: Trajectory | None
    choice: BackendChoice | None
    chunk: int | None
    middle: int | None
    seconds: Mapping[str, float]

    @property
    def bytes_kept(self) -> dict[str, int]:
        """Bytes held between inversion and edit: latents, averaged cross maps, attention."""
        trajectory = self.trajectory
        if trajectory is None:
            return {"latents": self.clean.nbytes, "cross_maps": 0, "attention": 0}
        maps = trajectory.cross_maps
        return {
            "latents": trajectory.latents.nbytes + (0 if trajectory.midway is None else trajectory.midway.nbytes),
            "cross_maps": 0 if maps is None else maps.nbytes,
            "attention": trajectory.attention.store.bytes_kept if trajectory.attention else 0,
        }


@dataclass(frozen=True, kw_only=True)
class EditResult:
    """An edited clip.

    Attributes:
        frames: uint8 F,H,W,3.
        source_frames: uint8 F,H,W,3.
        source_prompt: describes the clip.
        target: the edit.
        latents: F,C,h,w of the edited clip.
        masks: float F,H,W in [0, 1]: share of the blended steps in which a pixel lay in the mask, that of attention
            where attention was blended, else those of latents; None where nothing was blended.
        attention: by edited word, float F,m,n in [0, 1]: its cross-attention in the source, averaged over the
            steps, then divided by each frame's maximum.
        choice: how the source's attention was kept; None where it was not needed.
        bytes_kept: bytes held between inversion and edit.
        seconds: time by stage.
        peak_memory_bytes: of the process on the CPU, of the allocator on CUDA.
    """

    frames: Frames
    source_frames: Frames
    source_prompt: str
    target: Target
    latents: Tensor
    masks: npt.NDArray[np.float32] | None
    attention: Mapping[str, npt.NDArray[np.float32]]
    choice: BackendChoice | None
    bytes_kept: Mapping[str, int]
    seconds: Mapping[str, float]
    peak_memory_bytes: int
