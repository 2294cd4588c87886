"""DDIM inversion of a clip (FateZero, section 3.1), keeping what fusion needs of the source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fatezero.attention.store import Backend, CrossMapAverage, LayerRecorder, Recorder, Store
from fatezero.diffusion.ddim import Step, move, predicted_noise
from fatezero.diffusion.denoiser import Branch, Denoiser
from fatezero.errors import UserError


@dataclass(frozen=True)
class Needs:
    """What edits of a clip will ask of the source's attention.

    Attributes:
        sites: fused layers.
        self_steps: inversion steps whose self-attention, and that of fused temporal layers, is asked for.
        cross_steps: inversion steps whose cross-attention is asked for.
    """

    sites: frozenset[str] = frozenset()
    self_steps: frozenset[int] = frozenset()
    cross_steps: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.sites and (self.self_steps or self.cross_steps))

    def __or__(self, other: Needs) -> Needs:
        return Needs(self.sites | other.sites, self.self_steps | other.self_steps, self.cross_steps | other.cross_steps)

    def __le__(self, other: Needs) -> bool:
        return self | other == other


@dataclass(frozen=True)
class Keeping:
    """The source's attention between inversion and edit, beyond the latents.

    Attributes:
        backend: how it is kept.
        store: where.
        needs: what is kept.
    """

    backend: Backend
    store: Store
    needs: Needs

    def recorders(self, step: int, chunks: int) -> list[LayerRecorder]:
        """One recorder for each chunk at an inversion step; none where nothing is kept."""
        selfs = {"self", "temporal"} if step in self.needs.self_steps else set()
        kinds = selfs | ({"cross"} if step in self.needs.cross_steps else set())
        return [LayerRecorder(self.backend, self.needs.sites, kinds) for _ in range(chunks)] if kinds else []

    def keep(self, step: int, layers: Sequence[LayerRecorder]) -> None:
        """Put the chunks' recordings of a step away."""
        for chunk, layer in enumerate(layers):
            self.store.put((step, chunk), layer.recording)


@dataclass(frozen=True)
class Trajectory:
    """The inversion of a clip under its source prompt.

    Attributes:
        prompt: the source prompt.
        steps: the schedule, clean to noisy.
        latents: N+1,F,C,h,w; index 0 is the clean latent, index j the one after inversion step j.
        cross_maps: N,F,m,n,T cross-attention at the mask's layers, averaged over heads and layers, of the prompt's
            own tokens; None where no mask was wanted.
        keeping: the source's attention; None where the edit runs the source again.
    """

    prompt: str
    steps: tuple[Step, ...]
    latents: Tensor
    cross_maps: Tensor | None
    keeping: Keeping | None


class CrossMaps:
    """Watches the cross-attention that masks are made of, for the whole clip, one UNet prediction at a time."""

    def __init__(self, denoiser: Denoiser, downsampling: int, tokens: int) -> None:
        """Watch the layers at a downsampling of the latent, for the first tokens of the prompt.

        Raises:
            UserError: if the UNet has no cross-attention there.
        """
        crossing = [site for site in denoiser.backbone.sites if site.kind == "cross" and site.block != "mid"]
        self._sites = [site for site in crossing if site.downsampling == downsampling]
        if not self._sites:
            there = sorted({site.downsampling for site in crossing})
            raise UserError(
                f"{denoiser.backbone.name} has no cross-attention at downsampling {downsampling}: set "
                f"blending.mask_downsampling to one of {there}, or blending to null."
            )
        self._denoiser = denoiser
        self._tokens = tokens
        self._averages: list[CrossMapAverage] = []

    def start(self) -> list[CrossMapAverage]:
        """Fresh recorders for the next prediction, one for each chunk."""
        names = frozenset(site.name for site in self._sites)
        self._averages = [CrossMapAverage(names, self._tokens) for _ in self._denoiser.chunks]
        return self._averages

    def of_clip(self, latents: Tensor) -> Tensor:
        """F,m,n,T of the prediction just made for latents F,C,h,w."""
        size = self._sites[0].size(latents.shape[-2], latents.shape[-1])
        pieces = zip(self._averages, self._denoiser.chunks, strict=True)
        return torch.cat([average.mean(size)[list(chunk.own)] for average, chunk in pieces])


def invert(
    denoiser: Denoiser,
    clean: Tensor,
    prompt: str,
    steps: tuple[Step, ...],
    mask_downsampling: int | None = None,
    keeping: Keeping | None = None,
    on_step: Callable[[int], None] = lambda _: None,
) -> Trajectory:
    """Carry a clip from clean to noise under its source prompt, without guidance.

    Step i asks the UNet about the cleaner latent at the noisier level's timestep, as the original does; the edit
    step that undoes it (N - 1 - i) asks at the same timestep, so their attention pairs up.

    Args:
        denoiser: for clips of this length.
        clean: F,C,h,w.
        prompt: of the source.
        steps: from `ddim.schedule`.
        mask_downsampling: of the cross-attention kept for masks; None keeps none.
        keeping: what else of the attention to keep.
        on_step: called with the index of each finished step.
    """
    backbone = denoiser.backbone
    branch = Branch(clean, backbone.embed(prompt))
    tokens = len(backbone.read_prompt(prompt).ids)
    watch = CrossMaps(denoiser, mask_downsampling, tokens) if mask_downsampling is not None else None
    latents, cross_maps = [clean], []
    for i, step in enumerate(steps):
        layers = keeping.recorders(i, len(denoiser.chunks)) if keeping else []
        recorders: list[Sequence[Recorder]] = [
            *([layers] if layers else []),
            *([watch.start()] if watch else []),
        ]
        (output,) = denoiser.predict([branch], step.timestep, recorders=recorders)
        noise = predicted_noise(output, branch.latents, step.alpha_clean, backbone.prediction_type)
        branch = replace(branch, latents=move(branch.latents, noise, step.alpha_clean, step.alpha_noisy))
        latents.append(branch.latents)
        if keeping:
            keeping.keep(i, layers)
        if watch:
            cross_maps.append(watch.of_clip(clean))
        on_step(i)
    return Trajectory(prompt, steps, torch.stack(latents), torch.stack(cross_maps) if cross_maps else None, keeping)
