"""The editing loop: FateZero's algorithm, one DDIM step at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fatezero.attention.alignment import Prompt, active_steps, cross_mixes
from fatezero.attention.fusion import AttentionMap, CrossMix
from fatezero.attention.processor import StepFusion
from fatezero.attention.sites import Site
from fatezero.attention.store import Recorder
from fatezero.blending.blend import blend_latents
from fatezero.blending.mask import WordMask, word_attention
from fatezero.config import BlendingConfig, FusionConfig, MethodConfig
from fatezero.diffusion.backbone import Backbone
from fatezero.diffusion.ddim import Step, move, predicted_noise
from fatezero.diffusion.denoiser import Branch, Denoiser
from fatezero.diffusion.inversion import CrossMaps, Needs, Trajectory
from fatezero.errors import UserError


@dataclass(frozen=True)
class EditStep:
    """What one finished step of the edit was.

    Attributes:
        index: 0 is the noisiest.
        latents: F,C,h,w after the step.
        attention_mask: M_t by which self-attention was blended; None where it was not.
        latent_masks: source's and target's masks by which latents were blended; empty where they were not.
    """

    index: int
    latents: Tensor
    attention_mask: WordMask | None
    latent_masks: tuple[WordMask, ...]


@dataclass(frozen=True, kw_only=True)
class EditPlan:
    """An edit, worked out before it starts: which step does what.

    Attributes:
        steps: the schedule, clean to noisy.
        guidance_scale: of classifier-free guidance.
        target: the target prompt.
        fused_sites: layers whose attention is fused.
        self_steps: edit steps that fuse self-attention.
        cross: how each edit step mixes cross-attention; None where it does not.
        blending: None where nothing is blended.
        source_tokens: of the edited words in the source prompt.
        target_tokens: of the words in the target prompt that stand for them.
        latent_steps: edit steps after which latents are blended.
    """

    steps: tuple[Step, ...]
    guidance_scale: float
    target: Prompt
    fused_sites: frozenset[str] = frozenset()
    self_steps: range = range(0)
    cross: tuple[CrossMix | None, ...]
    blending: BlendingConfig | None = None
    source_tokens: tuple[int, ...] = ()
    target_tokens: tuple[int, ...] = ()
    latent_steps: range = range(0)

    @property
    def needs(self) -> Needs:
        """What is asked of the source's attention: edit step k asks for inversion step N - 1 - k."""
        last = len(self.steps) - 1
        crosses = (last - index for index, mix in enumerate(self.cross) if mix is not None)
        return Needs(self.fused_sites, frozenset(last - index for index in self.self_steps), frozenset(crosses))

    def fuses(self, index: int) -> bool:
        """Whether an edit step needs the source's attention."""
        return index in self.self_steps or self.cross[index] is not None


def plan_edit(
    backbone: Backbone,
    method: MethodConfig,
    steps: tuple[Step, ...],
    source_prompt: str,
    target_prompt: str,
    edited_words: tuple[str, ...] = (),
    target_words: tuple[str, ...] = (),
) -> EditPlan:
    """Work an edit out.

    Args:
        backbone: tokenises the prompts.
        method: the configuration.
        steps: the part of the schedule that the edit walks.
        source_prompt: describes the clip.
        target_prompt: describes the edit.
        edited_words: words of the source prompt; without any, nothing is blended.
        target_words: words of the target prompt, needed where latents are blended by both.

    Raises:
        UserError: for words that are not in their prompt, or prompts that the word map cannot align.
    """
    source, target = backbone.read_prompt(source_prompt), backbone.read_prompt(target_prompt)
    count = len(steps)
    plan = EditPlan(steps=steps, guidance_scale=method.guidance_scale, target=target, cross=(None,) * count)
    if method.fusion is not None:
        plan = replace(
            plan,
            fused_sites=fused_sites(backbone, method.fusion),
            self_steps=active_steps(method.fusion.self_window, count),
            cross=cross_mixes(method.fusion, source, target, backbone.context, count),
        )
    _tokens_of(target, target_words)  # a word that is not in its prompt is a mistake, used or not
    if method.blending is not None and edited_words:
        plan = _with_blending(plan, method.blending, source, edited_words, target_words)
    return plan


def fused_sites(backbone: Backbone, fusion: FusionConfig) -> frozenset[str]:
    """Names of the layers that are fused: those at the downsampling of `fusion.min_downsampling` or coarser.

    Layers of attention over frames are among them only where `fusion.temporal` says so.

    Raises:
        UserError: if the UNet has none.
    """
    sites = frozenset(
        site.name
        for site in backbone.sites
        if site.downsampling >= fusion.min_downsampling and (fusion.temporal or site.kind != "temporal")
    )
    if not sites:
        there = sorted({site.downsampling for site in backbone.sites})
        raise UserError(
            f"{backbone.name} has no attention at downsampling {fusion.min_downsampling} or coarser: set "
            f"fusion.min_downsampling to one of {there}, or fusion to null."
        )
    return sites


def _with_blending(
    plan: EditPlan,
    blending: BlendingConfig,
    source: Prompt,
    edited_words: tuple[str, ...],
    target_words: tuple[str, ...],
) -> EditPlan:
    latent_steps = active_steps(blending.latent_window, len(plan.steps))
    if latent_steps and blending.latent_words == "both" and not target_words:
        raise UserError(
            "Blending latents by source and target words needs target_words: name the words of "
            f"{plan.target.text!r} that stand for {', '.join(edited_words)}, or set blending.latent_words to 'source'."
        )
    return replace(
        plan,
        blending=blending,
        latent_steps=latent_steps,
        source_tokens=_tokens_of(source, edited_words),
        target_tokens=_tokens_of(plan.target, target_words),
    )


def _tokens_of(prompt: Prompt, words: tuple[str, ...]) -> tuple[int, ...]:
    """Positions of the words' tokens, each once, however the words overlap."""
    return tuple(dict.fromkeys(token for word in words for token in prompt.tokens_of(word)))


def edit(
    denoiser: Denoiser,
    plan: EditPlan,
    noisy: Tensor,
    trajectory: Trajectory | None,
    on_step: Callable[[EditStep], None] = lambda _: None,
) -> Tensor:
    """Denoise under the target prompt, with the source's attention fused in.

    Args:
        denoiser: for clips of this length.
        plan: from `plan_edit`.
        noisy: F,C,h,w at the noisiest level of the plan: the end of the inversion, or noise of SDEdit.
        trajectory: the inversion; needed where the plan fuses or blends.
        on_step: called after each step.

    Returns:
        F,C,h,w, clean.
    """
    backbone = denoiser.backbone
    conditional, unconditional = backbone.embed(plan.target.text), backbone.embed("")
    blender = None
    if plan.blending and plan.latent_steps and trajectory:
        blender = LatentBlender(denoiser, plan, plan.blending, trajectory)
    _check_kept(plan, trajectory)
    source_text = backbone.embed(trajectory.prompt) if trajectory else None
    latents = noisy
    for index, step in enumerate(reversed(plan.steps)):
        mask = _attention_mask(plan, trajectory, index)
        branches = [Branch(latents, conditional)]
        if plan.guidance_scale != 1:
            branches.insert(0, Branch(latents, unconditional))
        if plan.fuses(index) and trajectory and source_text is not None and trajectory.keeping is None:
            branches.insert(0, Branch(trajectory.latents[len(plan.steps) - 1 - index], source_text))
        outputs = denoiser.predict(
            branches,
            step.timestep,
            recorders=blender.start() if blender else (),
            fusion=partial(_step_fusion, denoiser, plan, trajectory, mask, index),
        )
        output = outputs[-1]
        if plan.guidance_scale != 1:
            output = outputs[-2] + plan.guidance_scale * (outputs[-1] - outputs[-2])
        noise = predicted_noise(output, latents, step.alpha_noisy, backbone.prediction_type)
        latents = move(latents, noise, step.alpha_noisy, step.alpha_clean)
        masks: tuple[WordMask, ...] = ()
        if blender:
            latents, masks = blender.blend(latents, index)
        on_step(EditStep(index, latents, mask, masks))
    return latents


def _check_kept(plan: EditPlan, trajectory: Trajectory | None) -> None:
    if trajectory and trajectory.keeping and not plan.needs <= trajectory.keeping.needs:
        raise UserError(
            "The inversion kept less of the source's attention than this edit fuses: invert with its own windows "
            "and layers, or with backend 'recompute'."
        )


def _attention_mask(plan: EditPlan, trajectory: Trajectory | None, index: int) -> WordMask | None:
    """M_t: from the source's cross-attention at the same timestep."""
    if plan.blending is None or not plan.blending.self_attention or index not in plan.self_steps:
        return None
    return _source_mask(plan, plan.blending, trajectory, index)


def _source_mask(plan: EditPlan, blending: BlendingConfig, trajectory: Trajectory | None, index: int) -> WordMask:
    if trajectory is None or trajectory.cross_maps is None:
        raise RuntimeError("blending needs an inversion that kept its cross-attention")
    maps = trajectory.cross_maps[len(plan.steps) - 1 - index]
    return WordMask(word_attention(maps, plan.source_tokens), blending.threshold)


def _step_fusion(
    denoiser: Denoiser,
    plan: EditPlan,
    trajectory: Trajectory | None,
    mask: WordMask | None,
    index: int,
    chunk: int,
) -> StepFusion | None:
    if not plan.fuses(index) or trajectory is None:
        return None
    frames = list(denoiser.chunks[chunk].frames)
    stored = None
    if trajectory.keeping is not None:
        keeping = trajectory.keeping
        recording = dict(keeping.store.get((len(plan.steps) - 1 - index, chunk), denoiser.backbone.device))

        def stored(site: Site, positions: Tensor | None) -> AttentionMap:
            return keeping.backend.source_map(recording, site, positions)

    return StepFusion(
        sites=plan.fused_sites,
        self_attention=index in plan.self_steps,
        cross=plan.cross[index],
        mask=(lambda size: mask.hard(size)[frames]) if mask else None,
        stored=stored,
    )


class LatentBlender:
    """Blends latents by masks of the source's words, and of the target's as seen in the edit so far."""

    def __init__(self, denoiser: Denoiser, plan: EditPlan, blending: BlendingConfig, trajectory: Trajectory) -> None:
        self._plan = plan
        self._blending = blending
        self._trajectory = trajectory
        both = blending.latent_words == "both"
        self._watch = CrossMaps(denoiser, blending.mask_downsampling, len(plan.target.ids)) if both else None
        self._seen: Tensor | float = 0.0  # F,m,n: the target words' attention, summed over the steps so far

    def start(self) -> list[Sequence[Recorder]]:
        """Recorders for the next prediction: they see the edit's own cross-attention, before fusion."""
        return [self._watch.start()] if self._watch else []

    def blend(self, latents: Tensor, index: int) -> tuple[Tensor, tuple[WordMask, ...]]:
        """Latents F,C,h,w after edit step `index`, blended if it is one of the plan's, and the masks used."""
        if self._watch:
            self._seen = word_attention(self._watch.of_clip(latents), self._plan.target_tokens) + self._seen
        if index not in self._plan.latent_steps:
            return latents, ()
        masks = [_source_mask(self._plan, self._blending, self._trajectory, index)]
        if isinstance(self._seen, Tensor):
            masks.append(WordMask(self._seen, self._blending.threshold))
        size = (latents.shape[-2], latents.shape[-1])
        free = torch.stack([mask.hard(size) for mask in masks]).any(0)
        return blend_latents(latents, self._source_latents(index), free), tuple(masks)

    def _source_latents(self, index: int) -> Tensor:
        """The inversion at the noise level that the edit reaches with step `index`."""
        return self._trajectory.latents[len(self._plan.steps) - 1 - index]
