"""Which step of an edit does what, worked out before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fatezero.attention.active_steps import active_steps, cross_steps
from fatezero.attention.counterparts import counterparts
from fatezero.attention.fusion import CrossMix
from fatezero.attention.prompts import Prompt
from fatezero.attention.word_maps import cross_mixes
from fatezero.config import BlendingConfig, FlowEditConfig, FusionConfig, MethodConfig
from fatezero.diffusion.backbone import Backbone
from fatezero.diffusion.step_sets import guided_steps, reused_steps, unconditional_steps
from fatezero.errors import UserError
from fatezero.source_attention.needs import Needs
from fatezero.system.terminal import quoted


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """One denoising step.

    Attributes:
        index: 0 is the noisiest.
        source_index: the inversion step at the same timestep, N - 1 - index.
        reuses_features: only the UNet's outermost level is computed, from the last deep features.
        guided: the prediction is guided.
        unconditional: the branch without a prompt runs beside the prompt's (classifier-free guidance): never where a
            network is told the scale, and otherwise in guided steps, except those that take the last difference; also
            in a whole step whose features it needs later.
        fuses_self: self-attention comes from the source.
        cross: how cross-attention is mixed with the source's; None leaves it alone.
        blends_attention: self-attention comes from the source outside the mask only.
        blends_latents: latents outside the mask are put back to the source's after the step.
    """

    index: int
    source_index: int
    reuses_features: bool = False
    guided: bool = False
    unconditional: bool = False
    fuses_self: bool = False
    cross: CrossMix | None = None
    blends_attention: bool = False
    blends_latents: bool = False

    @property
    def fuses(self) -> bool:
        """Whether the step needs the source's attention."""
        return self.fuses_self or self.cross is not None

    @property
    def blends(self) -> bool:
        """Whether the step needs the mask M_t."""
        return self.blends_attention or self.blends_latents


@dataclass(frozen=True, kw_only=True)
class EditPlan:
    """An edit, worked out before it starts.

    Attributes:
        steps: noisy to clean.
        guidance_scale: how strongly the prompt guides; 1 is no guidance.
        solver_order: as in `MethodConfig`.
        target_prompt: the prompt of the edit.
        negative_prompt: text of the unconditional branch.
        fused_sites: names of the layers whose attention is fused.
        blending: how masks are made; None where nothing is blended.
        flow_edit: as in `MethodConfig`.
        plain_steps: how many of FlowEdit's steps, the last ones, denoise under the target prompt alone.
        source_tokens: positions of the edited words in the source prompt.
        target_tokens: positions of the words in the target prompt that stand for them; empty where they are taken out.
    """

    steps: tuple[PlannedStep, ...]
    guidance_scale: float
    solver_order: Literal[1, 2]
    target_prompt: Prompt
    negative_prompt: str = ""
    fused_sites: frozenset[str] = frozenset()
    blending: BlendingConfig | None = None
    flow_edit: FlowEditConfig | None = None
    plain_steps: int = 0
    source_tokens: tuple[int, ...] = ()
    target_tokens: tuple[int, ...] = ()

    @property
    def needs(self) -> Needs:
        """What this plan needs of the source's attention."""
        selfs = frozenset(step.source_index for step in self.steps if step.fuses_self)
        crosses = frozenset(step.source_index for step in self.steps if step.cross is not None)
        return Needs(self.fused_sites, selfs, crosses)

    @property
    def difference_steps(self) -> tuple[PlannedStep, ...]:
        """FlowEdit's steps that go by the difference of two velocities."""
        return self.steps[: len(self.steps) - self.plain_steps]

    @property
    def blends_by_target_words(self) -> bool:
        """Whether latents are blended by masks of the target's words as well."""
        blends = any(step.blends_latents for step in self.steps)
        both = self.blending is not None and self.blending.latent_words == "both"
        return blends and both and bool(self.target_tokens)


def plan_edit(
    backbone: Backbone,
    method: MethodConfig,
    steps: int,
    source_prompt: str,
    target_prompt: str,
    edited_words: tuple[str, ...] = (),
    target_words: tuple[str, ...] = (),
) -> EditPlan:
    """Decide what each step of an edit fuses and blends.

    Args:
        backbone: tokenises the prompts.
        method: the configuration.
        steps: how many the edit walks.
        source_prompt: describes the clip.
        target_prompt: describes the edit.
        edited_words: words of the source prompt; without any, nothing is blended.
        target_words: words of the target prompt that stand for them; without any, `counterparts` finds them.

    Raises:
        UserError: for words that are not in their prompt, prompts that the word map cannot align, and settings that
            mean nothing to the networks.
    """
    _check_branches(backbone, method)
    contexts = method.prompt_contexts
    source, target = backbone.read_prompt(source_prompt, contexts), backbone.read_prompt(target_prompt, contexts)
    # A word that is not in its prompt is a mistake, whether or not it is used.
    source_tokens, target_tokens = _tokens_of(source, edited_words), _tokens_of(target, target_words)
    target_tokens = target_tokens or counterparts(source, target, source_tokens)
    fusion, blending = method.fusion, method.blending if edited_words else None
    sites = fused_sites(backbone, fusion) if fusion else frozenset()
    backbone.check_method(method, sites)
    mixes = cross_mixes(fusion, source, target, steps) if fusion else (None,) * steps
    planned = _planned_steps(replace(method, blending=blending), steps, mixes, embeds_guidance=backbone.embeds_guidance)
    _check_reuse(method, steps)
    return EditPlan(
        steps=planned,
        guidance_scale=method.guidance_scale,
        solver_order=method.solver_order,
        target_prompt=target,
        negative_prompt=backbone.read_prompt(method.negative_prompt, contexts).text,
        fused_sites=sites,
        blending=blending,
        flow_edit=method.flow_edit,
        plain_steps=method.plain_steps,
        source_tokens=source_tokens,
        target_tokens=target_tokens,
    )


def _planned_steps(
    method: MethodConfig, count: int, mixes: Sequence[CrossMix | None], *, embeds_guidance: bool
) -> tuple[PlannedStep, ...]:
    """Every step of an edit, noisy to clean, with the mixes of its cross-attention where it is computed in whole."""
    fusion, blending = method.fusion, method.blending
    reused = reused_steps(method.feature_reuse, count)
    guided = guided_steps(method, count)
    unconditional = frozenset[int]() if embeds_guidance else unconditional_steps(method, count)
    self_steps = set(active_steps(fusion.self_window, count)) - reused if fusion else set()
    latent_steps = active_steps(blending.latent_window, count) if blending else range(0)
    return tuple(
        PlannedStep(
            index=index,
            source_index=count - 1 - index,
            reuses_features=index in reused,
            guided=index in guided,
            unconditional=index in unconditional,
            fuses_self=index in self_steps,
            cross=None if index in reused else mixes[index],
            blends_attention=blending is not None and blending.self_attention and index in self_steps,
            blends_latents=index in latent_steps,
        )
        for index in range(count)
    )


def _check_branches(backbone: Backbone, method: MethodConfig) -> None:
    """Refuse what only a branch without a prompt can be told where none is run, and FlowEdit without velocities."""
    for name, value, off in (
        ("negative_prompt", method.negative_prompt, ""),
        ("guidance_every", method.guidance_every, 1),
    ):
        if backbone.embeds_guidance and value != off:
            raise UserError(
                f"{name} is {quoted(value)}, but {backbone.name} was distilled with its guidance and runs no "
                f"unconditional branch: give no {name}."
            )
    if method.flow_edit is not None and not backbone.predicts_velocity:
        raise UserError(
            f"flow_edit goes by velocities of flow matching, which {backbone.name} does not predict: set it to null."
        )


def _check_reuse(method: MethodConfig, count: int) -> None:
    """Refuse windows of fusion in which no step is computed in whole, so that nothing would be fused."""
    reused = reused_steps(method.feature_reuse, count)
    for name, asked in _fusion_steps(method.fusion, count).items() if method.fusion else ():
        if asked and reused.issuperset(asked):
            raise UserError(
                f"feature_reuse is {method.feature_reuse}, and no step that is computed in whole lies in "
                f"fusion.{name}: widen it, or set feature_reuse to 1."
            )


def _fusion_steps(fusion: FusionConfig, count: int) -> dict[str, range]:
    """Those of an edit's steps that lie in each window of fusion, by the window's name."""
    words = {f"word_windows[{quoted(word)}]": window for word, window in fusion.word_windows.items()}
    crosses = {"cross_window": fusion.cross_window, **words}
    steps = {name: cross_steps(window, count) for name, window in crosses.items()}
    return {"self_window": active_steps(fusion.self_window, count), **steps}


def fused_sites(backbone: Backbone, fusion: FusionConfig) -> frozenset[str]:
    """Names of the layers that are fused: those at the downsampling of `fusion.min_downsampling` or coarser.

    Layers of attention over frames are among them only where `fusion.temporal` says so.

    Raises:
        UserError: if the network has none.
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


def _tokens_of(prompt: Prompt, words: tuple[str, ...]) -> tuple[int, ...]:
    """Positions of the words' tokens, each once, however the words overlap."""
    return tuple(dict.fromkeys(token for word in words for token in prompt.tokens_of(word)))
