"""The editing loop: FateZero's algorithm, one step of the schedule at a time.

Symbols are the paper's: z the latents, M_t the blending mask. Shape letters: F frames, C channels, h and w rows and
columns of the latent, m and n those of a mask, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from fatezero.attention.key_frames import Chunk
from fatezero.attention.mask_layers import mask_layers
from fatezero.attention.processor import CallFusion
from fatezero.attention.recorders import Recorder
from fatezero.blending.blend import blend_latents
from fatezero.blending.mask import WordMask, word_attention
from fatezero.config import FlowEditConfig
from fatezero.diffusion.backbone import Denoiser
from fatezero.diffusion.inversion import CrossMapWatcher, SourceStep, Trajectory
from fatezero.diffusion.moves import Step
from fatezero.diffusion.prediction import Branch, Branches, Output
from fatezero.edit_plan import EditPlan, PlannedStep
from fatezero.errors import UserError


@dataclass(frozen=True)
class EditStep:
    """What one finished step of the edit was.

    Attributes:
        index: 0 is the noisiest.
        latents: F,C,h,w after the step.
        attention_mask: M_t by which self-attention was blended; None where it was not.
        latent_masks: masks by which latents were blended, of the source's words and perhaps of the target's; empty
            where they were not.
    """

    index: int
    latents: Tensor
    attention_mask: WordMask | None = None
    latent_masks: tuple[WordMask, ...] = ()


OnStep = Callable[[EditStep], None]


def edit(denoiser: Denoiser, plan: EditPlan, trajectory: Trajectory, on_step: OnStep = lambda _: None) -> Tensor:
    """Denoise the end of an inversion under the target prompt, with the source's attention fused in.

    Args:
        denoiser: made for clips of this length.
        plan: what each step does, from `plan_edit`.
        trajectory: the inversion.
        on_step: called after each step.

    Returns:
        F,C,h,w, clean.

    Raises:
        UserError: if the inversion kept less of the source's attention than the plan fuses.
    """
    _check_kept(plan, trajectory)
    texts, walk = _Texts(denoiser, plan), _Walk(denoiser, plan)
    reruns = trajectory.attention is None  # otherwise the source's attention was kept
    source_text = denoiser.backbone.embed(trajectory.prompt, denoiser.prompt_contexts) if reruns else None
    z = trajectory.latents[-1]
    target_words = _TargetWords(denoiser, plan, z) if plan.blends_by_target_words else None
    for step in plan.steps:
        source = trajectory.at(step.source_index)
        M_t = _source_mask(plan, source) if step.blends else None
        beside = Branch(source.asked, source_text) if step.fuses and source_text is not None else None
        asked, timestep = walk.asked(z, source.levels)
        output = denoiser.predict(
            texts.branches(asked, step, beside),
            timestep,
            recorders=target_words.recorders() if target_words and not step.reuses_features else (),
            fusion=_fusion(plan, step, source, M_t) if step.fuses else None,
            reuse=step.reuses_features,
        )
        z = walk.on(z, output, step, source.levels)
        if target_words:
            target_words.add_last_prediction()
        latent_masks: tuple[WordMask, ...] = ()
        if step.blends_latents and M_t is not None:
            latent_masks = (M_t, target_words.mask()) if target_words else (M_t,)
            z = blend_latents(z, source.next_latents, _any_of(latent_masks, z))
        on_step(EditStep(step.index, z, M_t if step.blends_attention else None, latent_masks))
    return z


def denoise(
    denoiser: Denoiser, plan: EditPlan, schedule: Sequence[Step], noisy: Tensor, on_step: OnStep = lambda _: None
) -> Tensor:
    """Denoise latents under the target prompt alone: what SDEdit does (Meng et al. 2022).

    Args:
        denoiser: made for clips of this length.
        plan: what each step does, from `plan_edit`.
        schedule: its levels, clean to noisy.
        noisy: F,C,h,w at the noisiest level.
        on_step: called after each step.

    Returns:
        F,C,h,w, clean.
    """
    return _denoise(denoiser, _Texts(denoiser, plan), _Walk(denoiser, plan), plan.steps, schedule, noisy, on_step)


def _denoise(
    denoiser: Denoiser,
    texts: _Texts,
    walk: _Walk,
    steps: Sequence[PlannedStep],
    schedule: Sequence[Step],
    noisy: Tensor,
    on_step: OnStep,
) -> Tensor:
    z = noisy
    for step in steps:
        levels = schedule[step.source_index]
        asked, timestep = walk.asked(z, levels)
        output = denoiser.predict(texts.branches(asked, step), timestep, reuse=step.reuses_features)
        z = walk.on(z, output, step, levels)
        on_step(EditStep(step.index, z))
    return z


def flow_edit(
    denoiser: Denoiser,
    plan: EditPlan,
    flow: FlowEditConfig,
    schedule: Sequence[Step],
    clean: Tensor,
    source_prompt: str,
    noises: Iterator[Tensor],
    on_step: OnStep = lambda _: None,
) -> Tensor:
    """Walk from the source to its edit by the difference of their velocities (FlowEdit, Kulikov et al. 2025, alg. 1).

    The source is noised anew for each step, and the edit stands as far from the noised source as from the clean one.

    Args:
        denoiser: made for clips of this length, of a model of flow matching.
        plan: what each step does, from `plan_edit`.
        flow: the plan's `flow_edit`.
        schedule: its levels, clean to noisy.
        clean: F,C,h,w of the source.
        source_prompt: describes it.
        noises: draws of noise F,C,h,w.
        on_step: called after each step.

    Returns:
        F,C,h,w, clean.
    """
    texts, walk = _Texts(denoiser, plan), _Walk(denoiser, plan)
    source_texts = _Texts(denoiser, plan, source_prompt, flow.source_guidance)
    source_guidance, z = _Guidance(flow.source_guidance), clean
    for step in plan.difference_steps:
        levels, differences = schedule[step.source_index], []
        for _ in range(flow.n_avg):
            noisy = levels.noised(clean, next(noises))
            source = denoiser.predict(source_texts.branches(noisy, step), levels.timestep)
            output = denoiser.predict(texts.branches(z - clean + noisy, step), levels.timestep)
            differences.append(walk.guidance.of(output, step) - source_guidance.of(source, step))
        z = walk.along(z, torch.stack(differences).mean(0), levels)
        on_step(EditStep(step.index, z))
    if not plan.plain_steps:
        return z
    noisy = z - clean + schedule[plan.plain_steps - 1].noised(clean, next(noises))
    return _denoise(denoiser, texts, walk, plan.steps[-plan.plain_steps :], schedule, noisy, on_step)


class _Guidance:
    """Classifier-free guidance along a walk, with the difference that one step hands on to the next."""

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._difference: Tensor | None = None  # between the branches, when both last ran

    def of(self, output: Output, step: PlannedStep) -> Tensor:
        """The step's prediction, by the difference between its branches or, where one ran alone, by the last one."""
        if output.unconditional is not None:
            self._difference = output.conditional - output.unconditional
        if not step.guided or self._difference is None:
            return output.conditional
        if output.unconditional is not None:
            return output.guided(self._scale)
        return output.conditional + (self._scale - 1) * self._difference


class _Walk:
    """The moves of an edit under guidance, with what one step hands on to the next."""

    def __init__(self, denoiser: Denoiser, plan: EditPlan) -> None:
        self._solver = denoiser.backbone.solver(plan.solver_order)
        self.guidance = _Guidance(plan.guidance_scale)

    def asked(self, z: Tensor, levels: Step) -> tuple[Tensor, float]:
        """The latents F,C,h,w and the timestep that the network is asked about in a step."""
        return self._solver.asked_to_denoise(z, levels)

    def on(self, z: Tensor, output: Output, step: PlannedStep, levels: Step) -> Tensor:
        """Latents F,C,h,w after a step."""
        return self.along(z, self.guidance.of(output, step), levels)

    def along(self, z: Tensor, prediction: Tensor, levels: Step) -> Tensor:
        """Latents F,C,h,w after a step, by a prediction that needs no more guidance."""
        return self._solver.denoise(z, prediction, levels)


def _fusion(
    plan: EditPlan, step: PlannedStep, source: SourceStep, M_t: WordMask | None
) -> Callable[[int, Chunk], CallFusion]:
    """Attention fusion of a step, made for one chunk's network call at a time."""
    hard = cache(M_t.hard) if M_t is not None and step.blends_attention else None  # once for all layers of a size
    mix = step.cross.like(source.next_latents) if step.cross is not None else None

    def of_chunk(index: int, chunk: Chunk) -> CallFusion:
        return CallFusion(
            sites=plan.fused_sites,
            self_attention=step.fuses_self,
            cross=mix,
            mask=(lambda size: hard(size)[list(chunk.frames)]) if hard is not None else None,
            stored=source.kept_maps(index),
        )

    return of_chunk


class _Texts:
    """What the network is told of a prompt and, under guidance, of the negative one: each step's branches."""

    def __init__(
        self, denoiser: Denoiser, plan: EditPlan, prompt: str | None = None, scale: float | None = None
    ) -> None:
        """Take the plan's target prompt and guidance scale, or others."""
        backbone, contexts = denoiser.backbone, denoiser.prompt_contexts
        scale = plan.guidance_scale if scale is None else scale
        self._prompt = backbone.embed(plan.target_prompt.text if prompt is None else prompt, contexts)
        self._told_guidance = scale if backbone.embeds_guidance else 1.0
        unconditional = scale != 1 and any(step.unconditional for step in plan.steps)
        self._negative = backbone.embed_negative(plan.negative_prompt, contexts) if unconditional else None

    def branches(self, z: Tensor, step: PlannedStep, source: Branch | None = None) -> Branches:
        """A step's batch for latents F,C,h,w, with the source's branch where it is run again."""
        unconditional = Branch(z, self._negative) if self._negative is not None and step.unconditional else None
        conditional = Branch(z, self._prompt, self._told_guidance if step.guided else 1.0)
        return Branches(conditional=conditional, unconditional=unconditional, source=source)


class _TargetWords:
    """The cross-attention of the target's words, before fusion, summed over the edit's steps so far."""

    def __init__(self, denoiser: Denoiser, plan: EditPlan, z: Tensor) -> None:
        assert plan.blending is not None
        tokens, latent_size = len(plan.target_prompt.ids), (z.shape[-2], z.shape[-1])
        self._threshold = plan.blending.threshold
        self._tokens = plan.target_tokens
        self._watcher = CrossMapWatcher(denoiser, latent_size, mask_layers(plan.blending), tokens)
        self._attention_Fmn: Tensor | None = None

    def recorders(self) -> list[Sequence[Recorder]]:
        """Recorders for the next prediction."""
        return [self._watcher.start()]

    def add_last_prediction(self) -> None:
        """Add the maps of the last prediction to the sum."""
        seen_Fmn = word_attention(self._watcher.of_clip(), self._tokens)
        self._attention_Fmn = seen_Fmn if self._attention_Fmn is None else seen_Fmn + self._attention_Fmn

    def mask(self) -> WordMask:
        """The mask of what was seen so far."""
        assert self._attention_Fmn is not None
        return WordMask(self._attention_Fmn, self._threshold)


def _check_kept(plan: EditPlan, trajectory: Trajectory) -> None:
    if trajectory.attention and plan.needs and not plan.needs <= trajectory.attention.needs:
        raise UserError(
            "The inversion kept less of the source's attention than this edit fuses: invert with its own windows "
            "and layers, or with backend 'recompute'."
        )


def _source_mask(plan: EditPlan, source: SourceStep) -> WordMask:
    """The mask of the edited words, from the source's cross-attention at the same timestep."""
    assert plan.blending is not None
    return WordMask(word_attention(source.cross_maps, plan.source_tokens), plan.blending.threshold)


def _any_of(masks: Sequence[WordMask], z: Tensor) -> Tensor:
    """Where any mask lets latents F,C,h,w change: bool F,h,w."""
    size = (z.shape[-2], z.shape[-1])
    return torch.stack([mask.hard(size) for mask in masks]).any(0)
