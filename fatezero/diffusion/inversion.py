"""Inversion of a clip, keeping what fusion needs of the source (FateZero, "Inversion Attention Fusion")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fatezero.attention.fusion import AttentionMap
from fatezero.attention.mask_layers import MaskLayers
from fatezero.attention.recorders import CrossMapAverage, Recorder
from fatezero.attention.sites import Site
from fatezero.diffusion.backbone import Denoiser
from fatezero.diffusion.moves import Step
from fatezero.diffusion.prediction import Branch, Branches
from fatezero.diffusion.step_sets import reused_steps
from fatezero.source_attention.backends import SourceAttention


@dataclass(frozen=True)
class Trajectory:
    """The inversion of a clip under its source prompt.

    Attributes:
        prompt: the source prompt.
        steps: the schedule, clean to noisy.
        latents: N+1,F,C,h,w; index i is what inversion step i starts from, index N is where it ends (the noise).
        cross_maps: N,F,m,n,T cross-attention at the mask's layers, averaged over heads and layers, of the prompt's
            own tokens; None where no mask was wanted.
        attention: the source's attention as it was kept; None where the edit runs the source again.
        midway: N,F,C,h,w that the network was asked about in each step; None where it was what the step starts from.
    """

    prompt: str
    steps: tuple[Step, ...]
    latents: Tensor
    cross_maps: Tensor | None
    attention: SourceAttention | None
    midway: Tensor | None = None

    def at(self, index: int) -> SourceStep:
        """What the source was at an inversion step."""
        return SourceStep(self, index)


@dataclass(frozen=True)
class SourceStep:
    """The source at the timestep of one inversion step, for the edit step at the same timestep.

    Attributes:
        trajectory: the inversion.
        index: index of the inversion step.
    """

    trajectory: Trajectory
    index: int

    @property
    def levels(self) -> Step:
        """Timestep and noise levels."""
        return self.trajectory.steps[self.index]

    @property
    def next_latents(self) -> Tensor:
        """F,C,h,w at the level that the edit step arrives at: the cleaner one, where the inversion step starts."""
        return self.trajectory.latents[self.index]

    @property
    def asked(self) -> Tensor:
        """F,C,h,w that the network was asked about in this step."""
        midway = self.trajectory.midway
        return self.trajectory.latents[self.index] if midway is None else midway[self.index]

    @property
    def cross_maps(self) -> Tensor:
        """F,m,n,T that masks are made of."""
        if self.trajectory.cross_maps is None:
            raise RuntimeError("blending needs an inversion that kept its cross-attention")
        return self.trajectory.cross_maps[self.index]

    def kept_maps(self, chunk_index: int) -> Callable[[Site, Tensor | None], AttentionMap] | None:
        """Gives each layer's map of a chunk, as it was kept; None where the source is run again."""
        kept = self.trajectory.attention
        if kept is None:
            return None
        recording = dict(kept.store.get((self.index, chunk_index), self.asked.device))
        return lambda site, positions: kept.backend.source_map(recording, site, positions)


class CrossMapWatcher:
    """Watches the cross-attention that masks are made of, for the whole clip, one prediction at a time."""

    def __init__(self, denoiser: Denoiser, latent_size: tuple[int, int], layers: MaskLayers, tokens: int) -> None:
        """Watch some layers, for the first tokens of the prompt.

        Raises:
            UserError: if the network has none of them.
        """
        self._sites = layers.among(denoiser.backbone.sites, denoiser.backbone.name)
        self._chunks = denoiser.chunks
        self._size = self._sites[0].size(*latent_size)
        self._tokens = tokens
        self._averages: list[CrossMapAverage] = []

    def start(self) -> list[CrossMapAverage]:
        """Fresh recorders for the next prediction, one for each chunk."""
        names = frozenset(site.name for site in self._sites)
        self._averages = [CrossMapAverage(names, self._tokens) for _ in self._chunks]
        return self._averages

    def of_clip(self) -> Tensor:
        """F,m,n,T of the last prediction that was watched."""
        watched = zip(self._averages, self._chunks, strict=True)
        return torch.cat([average.mean(self._size)[list(chunk.own)] for average, chunk in watched])


def invert(
    denoiser: Denoiser,
    clean: Tensor,
    prompt: str,
    steps: tuple[Step, ...],
    mask_layers: MaskLayers | None = None,
    attention: SourceAttention | None = None,
    on_step: Callable[[int], None] = lambda _: None,
    *,
    solver_order: Literal[1, 2] = 1,
    feature_reuse: int = 1,
) -> Trajectory:
    """Carry a clip from clean to noise under its source prompt, without guidance.

    Step i asks the network about the cleaner latent at the noisier level's timestep, as the original does; the edit
    step that undoes it (N - 1 - i) asks at the same timestep, so their attention pairs up.

    Args:
        denoiser: made for clips of this length.
        clean: F,C,h,w.
        prompt: the source prompt.
        steps: the schedule, clean to noisy.
        mask_layers: whose cross-attention is kept for masks; None keeps none.
        attention: where the source's attention is kept; None keeps none.
        on_step: called with the index of each finished step.
        solver_order: as in `MethodConfig`.
        feature_reuse: as in `MethodConfig`; the denoiser was made for it. The steps whose edit steps reuse features do
            so as well, all but the very first one; their cross-attention is that of the last whole step.
    """
    backbone, contexts = denoiser.backbone, denoiser.prompt_contexts
    text = backbone.embed(prompt, contexts)
    tokens = len(backbone.read_prompt(prompt, contexts).ids)
    watcher = None
    if mask_layers is not None:
        watcher = CrossMapWatcher(denoiser, (clean.shape[-2], clean.shape[-1]), mask_layers, tokens)
    # Each step's are written where they stay: a list of them would be held twice when it becomes a tensor.
    latents = clean.new_empty((len(steps) + 1, *clean.shape))
    latents[0], cross_maps = clean, None
    solver, reused = backbone.solver(solver_order), reused_steps(feature_reuse, len(steps))
    midway = clean.new_empty((len(steps), *clean.shape)) if solver.asks_midway else None
    for i, step in enumerate(steps):
        reuse = i > 0 and len(steps) - 1 - i in reused
        keepers = attention.recorders(i, len(denoiser.chunks)) if attention else []
        recorders: list[Sequence[Recorder]] = [
            *([keepers] if keepers else []),
            *([watcher.start()] if watcher and not reuse else []),
        ]
        asked, timestep = solver.asked_to_invert(latents[i], step)
        output = denoiser.predict(Branches(conditional=Branch(asked, text)), timestep, recorders=recorders, reuse=reuse)
        latents[i + 1] = solver.invert(latents[i], output.conditional, step)
        if midway is not None:
            midway[i] = asked
        if attention:
            attention.put(i, keepers)
        if watcher:
            seen = watcher.of_clip()
            cross_maps = seen.new_empty((len(steps), *seen.shape)) if cross_maps is None else cross_maps
            cross_maps[i] = seen
        on_step(i)
    return Trajectory(prompt, steps, latents, cross_maps, attention, midway)
