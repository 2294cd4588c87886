"""What the pipeline takes and gives: an edit that is asked for, a clip's inversion, an edited clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fatezero.attention.mask_layers import MaskLayers, mask_layers
from fatezero.attention.prompts import read_weights
from fatezero.config import MethodConfig
from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero.types import Clip, Frames

if TYPE_CHECKING:  # jobs name their targets without waiting for torch
    from torch import Tensor

    from fatezero.diffusion.inversion import Trajectory
    from fatezero.source_attention.budget import BackendChoice

Basis = tuple[object, ...]  # see `Target.basis`
FRAME_RATE = 8.0  # frames a second of a clip that comes as an array, without times


def as_clip(frames: Frames | Clip) -> Clip:
    """Frames uint8 F,H,W,3 as a clip of `FRAME_RATE`; a clip as it is.

    Raises:
        UserError: for frames of another shape or type, or none.
    """
    clip = frames if isinstance(frames, Clip) else Clip(frames, FRAME_RATE)
    array = clip.frames
    if not isinstance(array, np.ndarray):
        raise UserError(
            f"frames are a {type(array).__name__}: give uint8 F,H,W,3, or the clip that FateZero.read reads."
        )
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8 or not len(array):
        raise UserError(f"frames are {array.dtype} {array.shape}: give at least one frame as uint8 F,H,W,3.")
    return clip


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
        target_words: words of this prompt that stand for them, by which latents are blended; by default those that
            stand in their places.
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
        source: the clip.
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

    source: Clip
    prompt: str
    basis: Basis
    mask_layers: MaskLayers | None
    clean: Tensor
    trajectory: Trajectory | None
    choice: BackendChoice | None
    chunk: int | None
    middle: int | None
    seconds: Mapping[str, float]

    def __repr__(self) -> str:
        return f"<Inversion of {self.source}: {quoted(self.prompt)}>"

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
        source: the clip.
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
    source: Clip
    source_prompt: str
    target: Target
    latents: Tensor
    masks: npt.NDArray[np.float32] | None
    attention: Mapping[str, npt.NDArray[np.float32]]
    choice: BackendChoice | None
    bytes_kept: Mapping[str, int]
    seconds: Mapping[str, float]
    peak_memory_bytes: int

    def __repr__(self) -> str:
        words = f", edited words {', '.join(map(quoted, self.target.edited_words))}" if self.target.edited_words else ""
        return f"<EditResult of {self.source}: {' -> '.join(map(quoted, self.prompts))}{words}>"

    def _repr_html_(self) -> str:
        """Source, edit and mask side by side in one video, for a notebook."""
        from fatezero.viewing.notebook import edit_html  # noqa: PLC0415  (imports av)

        return edit_html(self.source, self.frames, self.prompts, self.masks)

    @property
    def source_frames(self) -> Frames:
        """The clip's frames, uint8 F,H,W,3."""
        return self.source.frames

    @property
    def prompts(self) -> tuple[str, str]:
        """What describes the clip, and the edit."""
        return self.source_prompt, self.target.prompt

    def save(self, path: str | Path) -> tuple[str, ...]:
        """Write the edited video, or everything that is to be seen of the edit.

        Args:
            path: a file .mp4, .webm, .gif or .webp, in the clip's times and with its sound; or a folder for what a run
                writes of an edit: `edited.mp4`, `side_by_side.mp4`, `masks.mp4`, frames and masks as PNG, attention.

        Returns:
            One sentence for each way in which the video differs from the frames, and one on what became of the sound.

        Raises:
            UserError: for a file of another kind, a folder that holds other files, or a place that cannot be written.
        """
        from fatezero.clips.encode import VIDEO_KINDS, write_video  # noqa: PLC0415  (imports av)
        from fatezero.viewing.result_files import write_edit_folder  # noqa: PLC0415  (imports cv2)

        place = Path(path)
        if place.suffix.lower() in VIDEO_KINDS and not place.is_dir():
            return write_video(place, self.frames, self.source.timing, sound=self.source.sound)
        if place.suffix and not place.is_dir():
            raise UserError(f"{place}: choose a file {', '.join(VIDEO_KINDS)}, or a folder, whose name has no suffix.")
        return write_edit_folder(place, self.source, self.frames, self.prompts, self.masks, self.attention)
