"""Joint attention (SD3, Flux, CogVideoX, HunyuanVideo) against whole maps, and against diffusers' pipelines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from torch import Tensor

from fatezero import BlendingConfig, FateZero, FusionConfig, MethodConfig, RuntimeConfig, UserError
from fatezero.attention.processor import CallFusion
from fatezero.config import FlowEditConfig, ModelOptions
from fatezero.diffusion.backbone import Backbone, load_backbone
from fatezero.diffusion.prediction import Branch, Branches
from fatezero.diffusion.recommendations import recommended_method
from fatezero.edit_plan import plan_edit
from fatezero.editing import denoise
from fatezero.results import Target
from tests.naive_joint_attention import NaiveAttention, NaiveMaps, naive_mask
from tests.tiny_pipelines import (
    saved,
    tiny_cogvideox,
    tiny_flux,
    tiny_hunyuan_video,
    tiny_stable_diffusion_3,
)

SOURCE, TARGET = "a silver jeep on the road", "a red bus on the road in the snow"
STEPS, GUIDANCE = 3, 2.5
METHOD = MethodConfig(
    steps=STEPS,
    guidance_scale=GUIDANCE,
    key_frames=("self",),
    norm_scope="frame",
    fusion=FusionConfig(cross_window=None, self_window=(0.0, 0.7), min_downsampling=1),
    blending=BlendingConfig(threshold=0.93, mask_downsampling=2, latent_window=(0.0, 0.7)),
)
Velocity = Callable[[Any, Tensor, float, str, float], Tensor]  # pipe, F,C,h,w, timestep, prompt, guidance -> F,C,h,w


@dataclass(frozen=True)
class FamilyCase:
    """A family's tiny pipeline, how diffusers calls its transformer and itself, and what is known of it."""

    make: Callable[[], Any]
    velocity: Velocity
    sample: Callable[[Any, Tensor, str], Tensor]
    frames: int
    jeep: tuple[int, ...]
    bus: tuple[int, ...]
    text_first: bool = False


def of_stable_diffusion_3(pipe: Any, z: Tensor, timestep: float, prompt: str, guidance: float) -> Tensor:
    hidden, _, pooled, _ = pipe.encode_prompt(prompt, None, None, do_classifier_free_guidance=False)
    told = torch.full((len(z),), timestep)
    return pipe.transformer(z, hidden.expand(len(z), -1, -1), pooled.expand(len(z), -1), told, return_dict=False)[0]


def of_cogvideox(pipe: Any, z: Tensor, timestep: float, prompt: str, guidance: float) -> Tensor:
    hidden, _ = pipe.encode_prompt(prompt, do_classifier_free_guidance=False, max_sequence_length=32)
    rotary = None
    if pipe.transformer.config.use_rotary_positional_embeddings:
        rotary = pipe._prepare_rotary_positional_embeddings(z.shape[2] * 8, z.shape[3] * 8, len(z), z.device)
    told = torch.tensor([int(timestep)])
    return pipe.transformer(z[None], hidden, told, image_rotary_emb=rotary, return_dict=False)[0][0]


def of_hunyuan_video(pipe: Any, z: Tensor, timestep: float, prompt: str, guidance: float) -> Tensor:
    hidden, pooled, mask = pipe.encode_prompt(prompt)
    scale = torch.tensor([guidance], dtype=z.dtype) * 1000
    told, clip = torch.tensor([timestep]), z.transpose(0, 1)[None]
    made = pipe.transformer(clip, told, hidden, mask.to(z.dtype), pooled, guidance=scale, return_dict=False)[0]
    return made[0].transpose(0, 1)


def of_flux(pipe: Any, z: Tensor, timestep: float, prompt: str, guidance: float) -> Tensor:
    hidden, pooled, text_ids = pipe.encode_prompt(prompt, None)
    n, channels, rows, columns = z.shape
    made = pipe.transformer(
        FluxPipeline._pack_latents(z, n, channels, rows, columns),
        encoder_hidden_states=hidden.expand(n, -1, -1),
        pooled_projections=pooled.expand(n, -1),
        timestep=torch.full((n,), timestep, dtype=z.dtype) / 1000,
        img_ids=FluxPipeline._prepare_latent_image_ids(n, rows // 2, columns // 2, z.device, z.dtype),
        txt_ids=text_ids,
        guidance=torch.full((n,), guidance) if pipe.transformer.config.guidance_embeds else None,
        return_dict=False,
    )[0]
    return FluxPipeline._unpack_latents(made, rows * 8, columns * 8, 8)


def sampled(pipe: Any, noise: Tensor, prompt: str, **more: Any) -> Tensor:
    """By the pipeline itself."""
    size = {"height": noise.shape[-2] * 8, "width": noise.shape[-1] * 8}
    made = pipe(prompt, num_inference_steps=STEPS, output_type="latent", return_dict=False, **size, **more)
    return made[0]


def sample_stable_diffusion_3(pipe: Any, noise: Tensor, prompt: str) -> Tensor:
    return sampled(pipe, noise, prompt, latents=noise, num_images_per_prompt=len(noise), guidance_scale=GUIDANCE)


def sample_cogvideox(pipe: Any, noise: Tensor, prompt: str) -> Tensor:
    more = {"latents": noise[None], "num_frames": 9, "guidance_scale": GUIDANCE, "max_sequence_length": 32}
    return sampled(pipe, noise, prompt, **more)[0]


def sample_hunyuan_video(pipe: Any, noise: Tensor, prompt: str) -> Tensor:
    latents = noise.transpose(0, 1)[None]
    return sampled(pipe, noise, prompt, latents=latents, num_frames=9, guidance_scale=GUIDANCE)[0].transpose(0, 1)


def sample_flux(pipe: Any, noise: Tensor, prompt: str) -> Tensor:
    latents = FluxPipeline._pack_latents(noise, *noise.shape)
    guidance = {"guidance_scale": GUIDANCE}
    if not pipe.transformer.config.guidance_embeds:
        guidance = {"true_cfg_scale": GUIDANCE, "negative_prompt": ""}
    made = sampled(pipe, noise, prompt, latents=latents, num_images_per_prompt=len(noise), **guidance)
    return FluxPipeline._unpack_latents(made, noise.shape[-2] * 8, noise.shape[-1] * 8, 8)


# Places of "silver jeep" in the source prompt and of "bus" in the target prompt, as each tokenizer has them.
JEEP, BUS = (1, 2), (2,)
CASES = {
    "sd3": FamilyCase(
        tiny_stable_diffusion_3, of_stable_diffusion_3, sample_stable_diffusion_3, 2, (2, 3, 78, 79), (3, 79)
    ),
    "sd3 without T5": FamilyCase(
        lambda: tiny_stable_diffusion_3(t5=False), of_stable_diffusion_3, sample_stable_diffusion_3, 2, (2, 3), (3,)
    ),
    "cogvideox": FamilyCase(tiny_cogvideox, of_cogvideox, sample_cogvideox, 9, JEEP, BUS, text_first=True),
    "cogvideox with added positions": FamilyCase(
        lambda: tiny_cogvideox(rotary=False), of_cogvideox, sample_cogvideox, 9, JEEP, BUS, text_first=True
    ),
    "hunyuan_video": FamilyCase(tiny_hunyuan_video, of_hunyuan_video, sample_hunyuan_video, 9, JEEP, BUS),
    "flux": FamilyCase(tiny_flux, of_flux, sample_flux, 2, JEEP, BUS, text_first=True),
    "flux without guidance": FamilyCase(
        lambda: tiny_flux(guidance=False), of_flux, sample_flux, 2, JEEP, BUS, text_first=True
    ),
}
each_case = pytest.mark.parametrize("name", CASES)
each_family = pytest.mark.parametrize("name", ["sd3", "cogvideox", "hunyuan_video", "flux"])


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """A case's pipeline in float64, and the folder that it was saved to."""

    @cache
    def load(name: str) -> tuple[Any, Path]:
        pipe = CASES[name].make()
        folder = saved(pipe, tmp_path_factory.mktemp("joint") / "model")
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(torch.float64), folder

    return load


@pytest.fixture(scope="session")
def backbone_of(loaded: Callable[[str], tuple[Any, Path]]) -> Callable[[str], Backbone]:
    """A case's networks in float64, as they are loaded from its folder."""

    @cache
    def load(name: str) -> Backbone:
        return load_backbone(ModelOptions(model=str(loaded(name)[1])), RuntimeConfig(device="cpu", dtype="float64"))

    return load


def editor_of(backbone: Backbone, backend: Any, chunk: int | None = None) -> FateZero:
    return FateZero(backbone, RuntimeConfig(backend=backend, chunk=chunk), report=lambda _: None)


def clip_of(case: FamilyCase) -> Any:
    return np.random.default_rng(0).integers(0, 255, (case.frames, 64, 96, 3), dtype=np.uint8)


def off_by(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


@each_case
@torch.no_grad()
def test_unfused_sampling_is_the_pipelines(
    name: str, loaded: Callable[[str], tuple[Any, Path]], backbone_of: Callable[[str], Backbone]
) -> None:
    case, (pipe, _), backbone = CASES[name], loaded(name), backbone_of(name)
    method = replace(METHOD, fusion=None, blending=None, sdedit_strength=1.0)
    shape = backbone.latent_shape(case.frames, 64, 96)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan = plan_edit(backbone, method, STEPS, SOURCE, TARGET)
    with backbone.denoiser(method, len(noise), None) as denoiser:
        ours = denoise(denoiser, plan, backbone.schedule(STEPS, shape), noise)
    assert off_by(ours, case.sample(pipe, noise, TARGET)) < 1e-5


@pytest.mark.slow
@each_family
@torch.no_grad()
def test_fusion_is_that_of_whole_maps(
    name: str, loaded: Callable[[str], tuple[Any, Path]], backbone_of: Callable[[str], Backbone]
) -> None:
    case, (pipe, _), backbone = CASES[name], loaded(name), backbone_of(name)
    editors = [editor_of(backbone, backend) for backend in ("qk", "recompute")]
    target = Target(prompt=TARGET, edited_words=("silver", "jeep"), target_words=("bus",), seed=0, method=METHOD)
    inversions = [editor.invert(clip_of(case), SOURCE, [target]) for editor in editors]
    edits = [editor.edit_inverted(inversion, target) for editor, inversion in zip(editors, inversions, strict=True)]
    naive = NaiveJointEdit(case, pipe, backbone)
    latents, edited = naive.run(inversions[0].clean)
    for inversion, edit in zip(inversions, edits, strict=True):
        assert inversion.trajectory is not None
        assert off_by(inversion.trajectory.latents, latents) < 1e-5
        assert off_by(edit.latents, edited) < 1e-5
    assert 0.1 < naive.shares[0] < 0.9, "masks are of some places"
    kept = inversions[0].choice
    assert kept is not None
    assert kept.predicted == inversions[0].bytes_kept["attention"] > 0


@each_family
@torch.no_grad()
def test_a_source_that_is_the_edit_changes_nothing(name: str, backbone_of: Callable[[str], Backbone]) -> None:
    case, backbone = CASES[name], backbone_of(name)
    z = torch.randn(backbone.latent_shape(case.frames, 64, 96), dtype=torch.float64)
    branch = Branch(z, backbone.embed(SOURCE))
    fusion = CallFusion(frozenset(site.name for site in backbone.sites), True, None, mask=None, stored=None)
    with backbone.denoiser(METHOD, len(z), None) as denoiser:
        alone = denoiser.predict(Branches(conditional=branch), 500).conditional
        same, other = (
            denoiser.predict(Branches(conditional=branch, source=source), 500, fusion=lambda *_: fusion).conditional
            for source in (branch, Branch(z.flip(-1), branch.text))
        )
    assert off_by(same, alone) < 1e-10
    assert off_by(other, alone) > 1e-4


@each_family
@torch.no_grad()
def test_branches_do_not_see_each_other(name: str, backbone_of: Callable[[str], Backbone]) -> None:
    case, backbone = CASES[name], backbone_of(name)
    z = torch.randn(backbone.latent_shape(case.frames, 64, 96), dtype=torch.float64)
    short, long = (Branch(z, backbone.embed(text)) for text in ("a cat", " ".join([TARGET] * 3)))
    with backbone.denoiser(METHOD, len(z), None) as denoiser:
        both = denoiser.predict(Branches(conditional=short, unconditional=long), 500)
        each = [denoiser.predict(Branches(conditional=branch), 500).conditional for branch in (short, long)]
    assert both.unconditional is not None
    assert off_by(both.conditional, each[0]) < 1e-10
    assert off_by(both.unconditional, each[1]) < 1e-10


@pytest.mark.slow
@torch.no_grad()
def test_images_do_not_see_each_other(backbone_of: Callable[[str], Backbone]) -> None:
    target = Target(prompt=TARGET, edited_words=("jeep",), target_words=("bus",), method=METHOD)
    clip = clip_of(CASES["sd3"])
    for backend in ("qk", "recompute"):
        whole, single = (editor_of(backbone_of("sd3"), backend, chunk) for chunk in (None, 1))
        edits = [editor.edit_inverted(editor.invert(clip, SOURCE, [target]), target) for editor in (whole, single)]
        alone = single.edit_inverted(single.invert(clip[1:], SOURCE, [target]), target)
        assert off_by(edits[1].latents, edits[0].latents) < 1e-10
        assert off_by(alone.latents[0], edits[0].latents[1]) < 1e-10


@each_case
def test_a_family_has_settings_that_mean_something_to_it(
    name: str, loaded: Callable[[str], tuple[Any, Path]], backbone_of: Callable[[str], Backbone]
) -> None:
    backbone, method = backbone_of(name), recommended_method(loaded(name)[1])
    plan = plan_edit(backbone, replace(method, steps=10), 10, SOURCE, TARGET, ("jeep",))
    assert [step.fuses_self for step in plan.steps] == [True] * 2 + [False] * 8
    assert set(plan.source_tokens) < set(CASES[name].jeep), "one of two words"


def changed(**fusion: Any) -> MethodConfig:
    assert METHOD.fusion is not None
    return replace(METHOD, fusion=replace(METHOD.fusion, **fusion))


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (changed(cross_window=(0.0, 0.8)), "fusion.cross_window is (0.0, 0.8), which means nothing"),
        (changed(word_windows={"bus": (0.0, 0.5)}), "fusion.word_windows"),
        (changed(reweight={"bus": 2.0}), "fusion.reweight"),
        (replace(METHOD, window_frames=5), "window_frames is 5, which means nothing"),
        (replace(METHOD, norm_scope="clip"), "norm_scope"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    method: MethodConfig, said: str, backbone_of: Callable[[str], Backbone]
) -> None:
    with pytest.raises(UserError) as refusal:
        plan_edit(backbone_of("sd3"), method, STEPS, SOURCE, TARGET)
    assert str(refusal.value).startswith(said)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("flux", {"negative_prompt": "fog"}, "negative_prompt is 'fog', but .* runs no unconditional branch"),
        ("hunyuan_video", {"guidance_every": 2}, "guidance_every is 2, but .* runs no unconditional branch"),
        (
            "cogvideox",
            {"fusion": None, "blending": None, "flow_edit": FlowEditConfig()},
            "flow_edit goes by velocities",
        ),
    ],
)
def test_what_a_network_was_not_trained_for_is_refused(
    name: str, changes: Any, said: str, backbone_of: Callable[[str], Backbone]
) -> None:
    with pytest.raises(UserError, match=said):
        plan_edit(backbone_of(name), replace(METHOD, **changes), STEPS, SOURCE, TARGET)


def test_maps_are_refused(backbone_of: Callable[[str], Backbone]) -> None:
    target = Target(prompt=TARGET, method=METHOD)
    with pytest.raises(UserError, match="Backend 'maps' keeps maps"):
        editor_of(backbone_of("sd3"), "maps").invert(clip_of(CASES["sd3"]), SOURCE, [target])


def test_clips_and_prompts_that_do_not_fit_are_refused(backbone_of: Callable[[str], Backbone]) -> None:
    with pytest.raises(UserError, match=r"5 frames .* multiple of 8: set --frames to 1, or to 9"):
        backbone_of("cogvideox").latent_shape(5, 64, 96)
    with pytest.raises(UserError, match=r"larger than .*: set --height and --width to at most 384"):
        backbone_of("sd3").latent_shape(1, 64, 400)
    for name, tokens in (("sd3", 75), ("hunyuan_video", 256), ("flux", 511)):
        with pytest.raises(UserError, match=f"the text encoder reads {tokens}"):
            backbone_of(name).embed("snow " * 600)


class NaiveJointEdit:
    """Inversion and edit by maps that exist, with diffusers' own transformer and attention processors."""

    def __init__(self, case: FamilyCase, pipe: Any, backbone: Any) -> None:
        self._case = case
        self._pipe = pipe
        self._told = backbone.embeds_guidance
        self._layers = [site.name for site in backbone.sites]
        self._backbone = backbone
        self.shares: list[float] = []  # of places inside the mask, for each step that is fused

    def run(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of the inversion, clean to noisy, and the edit's."""
        schedule = self._backbone.schedule(STEPS, tuple(clean.shape))
        latents, seen = [clean], []
        for step in schedule:
            velocity, maps = self._predict(latents[-1], step, SOURCE, 1.0)
            latents.append(moved(latents[-1], velocity, step, up=True))
            seen.append(maps)
        z, of_bus = latents[-1], torch.zeros(())
        for index in range(STEPS):
            source = STEPS - 1 - index
            step, fuses = schedule[source], index < int(0.7 * STEPS)
            jeep = self._words(seen[source], self._case.jeep, z)
            inside = naive_mask(jeep, tuple(jeep.shape[1:]), 0.93)
            self.shares += [float(inside.double().mean())] if fuses else []
            velocity, maps = self._predict(z, step, TARGET, GUIDANCE, seen[source] if fuses else None, inside)
            if not self._told:
                nothing, _ = self._predict(z, step, "", 1.0)
                velocity = nothing + GUIDANCE * (velocity - nothing)
            of_bus = of_bus + self._words(maps, self._case.bus, z)
            z = moved(z, velocity, step, up=False)
            if fuses:
                size = (z.shape[-2], z.shape[-1])
                kept = naive_mask(jeep, size, 0.93) | naive_mask(of_bus, size, 0.93)
                z = torch.where(kept[:, None], z, latents[source])
        return torch.stack(latents), z

    def _predict(
        self,
        z: Tensor,
        step: Any,
        prompt: str,
        guidance: float,
        source: NaiveMaps | None = None,
        inside: Tensor | None = None,
    ) -> tuple[Tensor, NaiveMaps]:
        rows = self._rows(z)
        places = z.shape[0] * z.shape[2] * z.shape[3] // 4 // rows
        inside = None if inside is None or source is None else inside.reshape(rows, places)
        attention = NaiveAttention(places, text_first=self._case.text_first, source=source, inside=inside)
        with attention.watching(self._pipe.transformer, self._layers) as maps:
            return self._case.velocity(self._pipe, z, step.timestep, prompt, guidance), maps

    def _rows(self, z: Tensor) -> int:
        """Of a batch: images are one for each frame, a clip is one."""
        return len(z) if self._case.frames == len(z) else 1

    def _words(self, maps: NaiveMaps, tokens: tuple[int, ...], z: Tensor) -> Tensor:
        """F,m,n attention to some tokens, mean of the layers."""
        mean = torch.stack([shares[..., list(tokens)].sum(-1) for shares in maps.words.values()]).mean(0)
        return mean.reshape(len(z), z.shape[2] // 2, z.shape[3] // 2)


def moved(z: Tensor, output: Tensor, step: Any, *, up: bool) -> Tensor:
    """From one level of a step to the other one."""
    if hasattr(step, "sigma_noisy"):
        return z + (step.sigma_noisy - step.sigma_clean) * (output if up else -output)
    here, there = (step.alpha_clean, step.alpha_noisy) if up else (step.alpha_noisy, step.alpha_clean)
    signal, sigma = here**0.5, (1 - here) ** 0.5
    clean, noise = signal * z - sigma * output, signal * output + sigma * z
    return there**0.5 * clean + (1 - there) ** 0.5 * noise
