"""Noise schedules of every scheduler class: the chain that diffusers' own pipeline walks under DDIM, or a refusal."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    DDIMInverseScheduler,
    DDIMScheduler,
    MotionAdapter,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import Tensor

from fatezero import shipped
from fatezero.config import FusionConfig, MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.adapter_schedule import describe_change, with_adapter_levels
from fatezero.diffusion.checkpoint import Checkpoint, find_checkpoint
from fatezero.diffusion.ddim import as_ddim, move, schedule
from fatezero.diffusion.description import describe
from fatezero.diffusion.inversion import invert
from fatezero.diffusion.layouts import SCHEDULERS
from fatezero.diffusion.model_families.unet import UNetBackbone, unet_denoiser
from fatezero.diffusion.motion_unet import with_motion
from fatezero.diffusion.schedule_fields import SCHEDULER_FILE, SPACINGS, vet_schedule
from fatezero.edit_plan import plan_edit
from fatezero.editing import denoise, edit
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from fatezero.results import Target
from fatezero.training.tuning import tune_one
from fatezero.training.tuning_config import TuningConfig

# diffusers' schedulers, the independent reference here, call NumPy in old ways and say what their pipelines mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
FILE = Path("model", "scheduler", "scheduler_config.json")
STEPS, PROMPT = 3, "a jeep on the road"
IMAGE = MethodConfig(steps=STEPS, key_frames=(), norm_scope="frame", fusion=None, blending=None)
STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TRAINED = {"trained_betas": np.linspace(0.001, 0.02, 1000).tolist()}
ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
CPU = RuntimeConfig(device="cpu", dtype="float64")  # in which all that computes the same agrees, however it rounds
READ_ZERO = ("DDIM", "DDPM", "EulerDiscrete", "EulerAncestral", "DPMSolverMultistep", "UniPC", "LCM", "TCD")


def smallest_unet(**changes: Any) -> UNet2DConditionModel:
    """Two levels; groups of several channels, or norms would take away what each timestep adds to a channel."""
    torch.manual_seed(0)
    shape = {
        "sample_size": 8, "block_out_channels": (8, 8), "norm_num_groups": 2, "cross_attention_dim": 32,
        "layers_per_block": 1, "attention_head_dim": 2, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    return UNet2DConditionModel(**(shape | changes)).requires_grad_(requires_grad=False).eval().double()


def distilled_unet(width: int) -> UNet2DConditionModel:
    """With a guidance embedding that says something: diffusers' own initial weights hardly do."""
    unet = smallest_unet(time_cond_proj_dim=width)
    torch.nn.init.normal_(unet.time_embedding.cond_proj.weight)
    return unet


@pytest.fixture(scope="module")
def parts(golden_folder: Path) -> dict[str, Any]:
    """The tiny checkpoint's networks, the UNet smaller still."""
    pipe = StableDiffusionPipeline.from_pretrained(golden_folder / "model", safety_checker=None).to(torch.float64)
    components: dict[str, Any] = pipe.components
    return components | {"unet": smallest_unet()}


@pytest.fixture(scope="module")
def model(parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a folder."""
    folder = tmp_path_factory.mktemp("model")
    StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)
    return folder


def pipeline(parts: dict[str, Any], scheduler: Any, **others: Any) -> Any:
    pipe = StableDiffusionPipeline(**(parts | {"scheduler": scheduler} | others), requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def own_scheduler(name: str, config: dict[str, Any]) -> Any:
    return getattr(diffusers, name).from_config(config)


def backbone_of(parts: dict[str, Any], name: str, config: dict[str, Any], **others: Any) -> UNetBackbone:
    vet_schedule(config, FILE)
    pipe = pipeline(parts, as_ddim(own_scheduler(name, config), FILE), **others)
    return UNetBackbone.of_pipeline(pipe, Checkpoint(ModelOptions(model="tiny"), Path()), torch.device("cpu"))


def noise(channels: int = 4) -> Tensor:
    return torch.randn(1, channels, 8, 8, generator=torch.Generator().manual_seed(0)).double()


def sampled(backbone: UNetBackbone, guidance: float = 3.0, steps: int = STEPS) -> Tensor:
    """What the editor makes of noise under a prompt."""
    method = replace(IMAGE, steps=steps, guidance_scale=guidance)
    plan = FateZero(backbone, report=lambda _: None).plan(PROMPT, Target(prompt=PROMPT, method=method))
    with unet_denoiser(backbone, method, 1, None) as denoiser, torch.no_grad():
        return denoise(denoiser, plan, schedule(backbone.scheduler_config, method.steps), noise())


def sampled_by_diffusers(pipe: Any, guidance: float = 3.0, steps: int = STEPS) -> Tensor:
    made = pipe(PROMPT, num_inference_steps=steps, guidance_scale=guidance, latents=noise(), output_type="latent")
    latents: Tensor = made.images
    return latents


def assert_same_image(parts: dict[str, Any], name: str, config: dict[str, Any]) -> None:
    theirs = pipeline(parts, DDIMScheduler.from_config(own_scheduler(name, config).config))
    ours = sampled(backbone_of(parts, name, config))
    torch.testing.assert_close(ours, sampled_by_diffusers(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "spacing"),
    [(name, spacing) for i, name in enumerate(SCHEDULERS) for spacing in (None, SPACINGS[i % 3])],
)
def test_every_class_and_spacing(parts: dict[str, Any], name: str, spacing: str | None) -> None:
    """A spacing that the file leaves open is DDIM's, as diffusers has it; a PNDM's own final level is kept."""
    assert_same_image(parts, name, STABLE | ({"timestep_spacing": spacing} if spacing else {}))


@pytest.mark.parametrize(
    ("prediction", "spacing"), [("epsilon", "leading"), ("v_prediction", "trailing"), ("epsilon", "linspace")]
)
@pytest.mark.parametrize(
    "levels",
    [
        STABLE,
        STABLE | {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        TRAINED,
        STABLE | {"set_alpha_to_one": False},
        STABLE | {"steps_offset": 1},
        STABLE | {"clip_sample": True, "steps_offset": 0},  # mended by diffusers' pipeline
        STABLE | {"num_train_timesteps": 500},
        {},
    ],
    ids=["scaled", "linear", "cosine", "trained", "last-level", "offset", "outdated", "500", "defaults"],
)
def test_levels_and_predictions(parts: dict[str, Any], levels: dict[str, Any], prediction: str, spacing: str) -> None:
    assert_same_image(parts, "DDIMScheduler", levels | {"prediction_type": prediction, "timestep_spacing": spacing})


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name.startswith(READ_ZERO)])
def test_zero_terminal_signal(parts: dict[str, Any], name: str) -> None:
    assert_same_image(parts, name, STABLE | ZERO)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        *(("EulerDiscreteScheduler", {one: True}) for one in ("use_karras_sigmas", "use_beta_sigmas")),
        ("EulerDiscreteScheduler", {"interpolation_type": "log_linear", "final_sigmas_type": "sigma_min"}),
        ("DPMSolverMultistepScheduler", {"use_exponential_sigmas": True, "algorithm_type": "sde-dpmsolver++"}),
        ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True, "lambda_min_clipped": -5.1, "flow_shift": 3.0}),
        ("UniPCMultistepScheduler", {"solver_order": 3, "disable_corrector": [0]}),
        ("LCMScheduler", {"original_inference_steps": 25, "timestep_scaling": 5.0}),
        ("TCDScheduler", {"original_inference_steps": 25, "timestep_scaling": 5.0}),
        ("DDPMScheduler", {"sample_max_value": 3.0, "dynamic_thresholding_ratio": 0.9, "clip_sample_range": 2.0}),
    ],
)
def test_what_places_another_samplers_steps_is_not_ddims(
    parts: dict[str, Any], name: str, fields: dict[str, Any]
) -> None:
    assert_same_image(parts, name, STABLE | fields)


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("DDIMScheduler", {"thresholding": True}, "thresholding is True"),
        ("DPMSolverMultistepScheduler", {"thresholding": True}, "thresholding is True"),
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True}, "flow matching"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}, "flow matching"),
        ("DEISMultistepScheduler", {"use_flow_sigmas": True, "use_dynamic_shifting": True}, "flow matching"),
        ("DDIMScheduler", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "flow matching"),
        ("DDIMScheduler", {"shift": 3.0}, "shift is 3.0: this is flow matching"),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous", "prediction_type": "v_prediction"}, "timestep_type"),
        ("DDPMScheduler", {"variance_type": "learned_range"}, "variance_type is 'learned_range'"),
        ("DDPMScheduler", {"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'"),
        ("HeunDiscreteScheduler", {"beta_schedule": "exp"}, "beta_schedule is 'exp'"),
        ("DDIMScheduler", {"timestep_spacing": "even"}, "timestep_spacing is 'even'"),
        ("DDIMScheduler", {"trained_betas": [0.01] * 500}, "trained_betas are 500, num_train_timesteps is 1000"),
        ("DDIMScheduler", {"prediction_type": "sample"}, "predicts 'sample'"),
        ("DDIMScheduler", {"rescale_betas_zero_snr": True}, "a network that predicts noise"),
        ("DDIMScheduler", {"trained_betas": [0.01] * 999 + [1.0]}, "a network that predicts noise"),
        ("PNDMScheduler", ZERO, "noise levels under PNDMScheduler"),
    ],
)
def test_what_means_another_chain_is_refused(
    parts: dict[str, Any], name: str, fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        backbone_of(parts, name, STABLE | fields)


@pytest.mark.parametrize("name", [one for one in SCHEDULERS if one.startswith(("Heun", "KDPM2", "LCM", "TCD"))])
def test_levels_that_classes_assume_differently_are_to_be_stated(name: str) -> None:
    with pytest.raises(UserError, match=f"noise levels under {name}"):
        as_ddim(own_scheduler(name, {}), FILE)


@pytest.mark.parametrize("steps", [1, 7, 50, 300])
@pytest.mark.parametrize(("prediction", "zero"), [("epsilon", False), ("v_prediction", False), ("v_prediction", True)])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_diffusers_undoes_each_move_of_an_inversion(spacing: str, prediction: Any, steps: int, *, zero: bool) -> None:
    """For a network whose noise and clean latent do not change along a step; also to pure noise and out of it."""
    config = dict(
        DDIMScheduler(
            **STABLE, timestep_spacing=spacing, prediction_type=prediction, rescale_betas_zero_snr=zero,
            clip_sample=False,
        ).config
    )  # fmt: skip
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(1)
    clean, eps = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    walked = schedule(config, steps)
    assert [step.timestep for step in walked] == scheduler.timesteps.flip(0).tolist()
    for step in walked:
        (signal, sigma), (less, more) = (((a**0.5), (1 - a) ** 0.5) for a in (step.alpha_clean, step.alpha_noisy))
        x = signal * clean + sigma * eps
        output, after = (
            (eps, eps) if prediction == "epsilon" else (signal * eps - sigma * clean, less * eps - more * clean)
        )
        noisier = move(x, output, step.alpha_clean, step.alpha_noisy, prediction)
        torch.testing.assert_close(noisier, less * clean + more * eps, rtol=0, atol=1e-6)
        back = scheduler.step(after, step.timestep, noisier).prev_sample
        torch.testing.assert_close(back, x, rtol=0, atol=2e-5)


def walked(backbone: UNetBackbone, steps: int, guidance: float = 1) -> tuple[Tensor, Tensor]:
    """Every latent of an inversion of noise, N+1,1,C,h,w, and what the edit under the same prompt makes of its end."""
    method = replace(IMAGE, steps=steps, guidance_scale=guidance)
    plan = FateZero(backbone, report=lambda _: None).plan(PROMPT, Target(prompt=PROMPT, method=method))
    with unet_denoiser(backbone, method, 1, None) as denoiser, torch.no_grad():
        trajectory = invert(denoiser, noise(), PROMPT, schedule(backbone.scheduler_config, steps))
        return trajectory.latents, edit(denoiser, plan, trajectory)


@pytest.mark.parametrize(
    ("spacing", "prediction", "zero"),
    [
        *(("leading", "epsilon", False), ("leading", "v_prediction", False), ("trailing", "epsilon", False)),
        ("trailing", "v_prediction", True),
    ],
)
def test_an_inversion_is_diffusers_inverse_scheduler(
    parts: dict[str, Any], spacing: str, prediction: str, *, zero: bool
) -> None:
    config = {"timestep_spacing": spacing, "prediction_type": prediction, "rescale_betas_zero_snr": zero}
    backbone = backbone_of(parts, "DDIMScheduler", STABLE | config | {"set_alpha_to_one": True})
    ours, _ = walked(backbone, STEPS)
    inverse = DDIMInverseScheduler.from_config(backbone.scheduler_config)
    inverse.set_timesteps(STEPS)
    x, text = noise(), backbone.embed(PROMPT).hidden
    for i, t in enumerate(inverse.timesteps):
        x = inverse.step(parts["unet"](x, t, text).sample, int(t), x).prev_sample
        torch.testing.assert_close(ours[i + 1], x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_an_inversion_and_back(parts: dict[str, Any], spacing: str) -> None:
    """A network that says the same of every latent is undone to rounding, from wherever the inversion ended."""
    unet = smallest_unet()
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.constant_(unet.conv_out.bias, 0.7)
    backbone = backbone_of(parts, "DDIMScheduler", STABLE | {"timestep_spacing": spacing}, unet=unet)
    latents, back = walked(backbone, 7)
    torch.testing.assert_close(back, latents[0], rtol=0, atol=1e-4)


def test_an_inversion_to_pure_noise_and_back(parts: dict[str, Any]) -> None:
    """The way back from there is finite, and diffusers' own."""
    backbone = backbone_of(parts, "DDIMScheduler", STABLE | ZERO)
    steps = schedule(backbone.scheduler_config, STEPS)
    assert steps[-1].alpha_noisy == 0
    latents, back = walked(backbone, STEPS)
    theirs = DDIMScheduler.from_config(backbone.scheduler_config)
    theirs.set_timesteps(STEPS)
    x, text = latents[-1], backbone.embed(PROMPT).hidden
    for t in theirs.timesteps:
        x = theirs.step(parts["unet"](x, t, text).sample, int(t), x).prev_sample
    torch.testing.assert_close(back, x, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(latents[-1], latents[-2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "LCMScheduler"])
def test_a_whole_folder(parts: dict[str, Any], name: str, tmp_path: Path) -> None:
    """As a user has it: the scheduler's class in its file, rescaled to no terminal signal, LCM's UNet.

    A DPMSolver's file says -Infinity, which is no JSON.

    Of schedulers that do not clip, diffusers makes a DDIM that does unless told not to.
    """
    unet = distilled_unet(8)
    own = own_scheduler(name, STABLE | ZERO)
    pipeline(parts, own, unet=unet, safety_checker=None).save_pretrained(tmp_path)
    ours = sampled(UNetBackbone.load(str(tmp_path), CPU))
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None).to(torch.float64)
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = DDIMScheduler.from_config(theirs.scheduler.config, clip_sample=False)
    torch.testing.assert_close(ours, sampled_by_diffusers(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            r"scheduler_config\.json: _class_name is .* flow matching",
        ),
        ({"use_dynamic_shifting": True}, "use_dynamic_shifting is True: this is flow matching"),
        ({"thresholding": True}, r"scheduler/scheduler_config\.json: thresholding is True"),
    ],
)
def test_refused_before_weights_are_read(
    golden_folder: Path, tmp_path: Path, written: dict[str, Any], sentence: str
) -> None:
    folder = Path(shutil.copytree(golden_folder / "model", tmp_path / "model"))
    file = folder / SCHEDULER_FILE
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | written), encoding="utf-8")
    with pytest.raises(UserError, match=sentence):
        find_checkpoint(ModelOptions(model=str(folder)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("DDIMScheduler", STABLE | {"clip_sample": True}, "scaled_linear betas from 0.00085 to 0.012, 1000 levels"),
        ("PNDMScheduler", TRAINED, "trained betas, 1000 levels, leading spacing, predicts epsilon; DDIM in place of"),
        ("HeunDiscreteScheduler", {}, "noise levels under HeunDiscreteScheduler are not those under DDIM"),
    ],
)
def test_the_doctor_says_of_a_schedule_what_loading_does(
    model: Path, tmp_path: Path, name: str, fields: dict[str, Any], sentence: str
) -> None:
    """Also of one that diffusers' pipeline mends, and of one whose own class has other levels."""
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    file, index = folder / SCHEDULER_FILE, folder / "model_index.json"
    file.write_text(json.dumps(fields | {"_class_name": name}), encoding="utf-8")
    layout = json.loads(index.read_text(encoding="utf-8")) | {"scheduler": ["diffusers", name]}
    index.write_text(json.dumps(layout), encoding="utf-8")
    found = list(describe(ModelOptions(model=str(folder))))
    assert any(sentence in line for _, line in found), found
    serves = all(fits for fits, _ in found)
    assert serves == (name != "HeunDiscreteScheduler")
    with nullcontext() if serves else pytest.raises(UserError, match=sentence):
        UNetBackbone.load(str(folder), CPU)


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_a_guidance_embedding_is_told(parts: dict[str, Any], guidance: float) -> None:
    """As by diffusers' pipeline, in one branch; and the inversion, which is without guidance, is told 1."""
    unet = distilled_unet(9)
    backbone = backbone_of(parts, "LCMScheduler", STABLE, unet=unet)
    theirs = pipeline(parts, DDIMScheduler.from_config(backbone.scheduler_config), unet=unet)
    image = sampled(backbone, guidance)
    torch.testing.assert_close(image, sampled_by_diffusers(theirs, guidance), rtol=1e-5, atol=1e-5)
    assert (guidance == 1) == torch.equal(image, sampled(backbone, 1.0))
    told = theirs.get_guidance_scale_embedding(torch.zeros(1), embedding_dim=9).double()
    first = schedule(backbone.scheduler_config, STEPS)[0]
    output = unet(noise(), first.timestep, backbone.embed(PROMPT).hidden, timestep_cond=told).sample
    inverted, _ = walked(backbone, STEPS, guidance)
    expected = move(noise(), output, first.alpha_clean, first.alpha_noisy)
    torch.testing.assert_close(inverted[1], expected, rtol=1e-5, atol=1e-5)


def test_a_guidance_embedding_beside_the_sources_branch(parts: dict[str, Any]) -> None:
    """Fusion reads the source without guidance: run again beside the edit or kept, the result is the same."""
    backbone = backbone_of(parts, "LCMScheduler", STABLE, unet=distilled_unet(8))
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    method = MethodConfig(steps=STEPS, fusion=FusionConfig(min_downsampling=1), blending=None)
    results = [
        FateZero(backbone, RuntimeConfig(device="cpu", backend=backend), report=lambda _: None).edit(  # type: ignore[arg-type]
            frames, PROMPT, "a bus on the road", method=method
        )
        for backend in ("recompute", "qk", "maps")
    ]
    for result in results[1:]:
        torch.testing.assert_close(result.latents, results[0].latents, rtol=1e-5, atol=1e-5)


def test_a_distilled_model_has_no_branch_for_a_negative_prompt(parts: dict[str, Any]) -> None:
    backbone = backbone_of(parts, "LCMScheduler", STABLE, unet=distilled_unet(8))
    with pytest.raises(UserError, match="negative_prompt is 'grey', but tiny was distilled with its guidance"):
        plan_edit(backbone, MethodConfig(steps=STEPS, negative_prompt="grey"), STEPS, PROMPT, PROMPT)
    with pytest.raises(UserError, match="guidance_every is 2, but tiny was distilled with its guidance"):
        plan_edit(backbone, MethodConfig(steps=STEPS, guidance_every=2), STEPS, PROMPT, PROMPT)


@pytest.mark.parametrize("steps", [4, 8])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_a_distilled_model_in_few_steps(parts: dict[str, Any], steps: int, spacing: str) -> None:
    """At the timesteps that DDIM has by the file's spacing, there and back; guidance is told in its window alone."""
    levels = STABLE | {"timestep_spacing": spacing, "original_inference_steps": 50}
    backbone = backbone_of(parts, "LCMScheduler", levels, unet=distilled_unet(8))
    theirs = DDIMScheduler.from_config(backbone.scheduler_config)
    theirs.set_timesteps(steps)
    told: list[tuple[int, Tensor]] = []

    def note(_module: Any, args: Any, kwargs: Any) -> None:
        told.append((int(args[1]), kwargs["timestep_cond"]))

    hook = backbone.unet.register_forward_pre_hook(note, with_kwargs=True)
    frames = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
    method = replace(IMAGE, steps=steps, guidance_window=(0.0, 0.5))
    result = FateZero(backbone, RuntimeConfig(), report=lambda _: None).edit(frames, PROMPT, PROMPT, method=method)
    hook.remove()
    down = [int(t) for t in theirs.timesteps]
    assert [t for t, _ in told] == [*reversed(down), *down]
    plain, guided = told[0][1], told[steps][1]
    assert not torch.equal(plain, guided)
    for index, (_, embedding) in enumerate(told):
        assert torch.equal(embedding, guided if steps <= index < steps + steps // 2 else plain)
    assert result.latents.isfinite().all()


@pytest.mark.slow
def test_a_distilled_model_is_not_tuned(parts: dict[str, Any], tmp_path: Path) -> None:
    pipeline(parts, parts["scheduler"], unet=distilled_unet(8)).save_pretrained(tmp_path / "model")
    clip = tmp_path / "clip"
    clip.mkdir()
    for i in range(2):
        Image.new("RGB", (64, 64), (i, 0, 0)).save(clip / f"{i}.png")
    options = TuningConfig(clip=str(clip), prompt=PROMPT, out=tmp_path / "out")
    with pytest.raises(UserError, match="tune the model it was distilled from"):
        tune_one(options, ModelOptions(model=str(tmp_path / "model")))


@pytest.fixture
def motion(tmp_path: Path) -> Path:
    """A motion adapter, whose files do not state noise levels, as published ones."""
    torch.manual_seed(0)
    shape = {"block_out_channels": (8, 8), "motion_norm_num_groups": 8, "motion_max_seq_length": 6}
    MotionAdapter(**shape, motion_layers_per_block=1).save_pretrained(tmp_path / "motion")
    return tmp_path / "motion"


def video(model: Path, motion: Path, schedule: Any = None) -> UNetBackbone:
    networks = ModelOptions(model=str(model), motion_adapter=str(motion), schedule=schedule)
    found, backbone = find_checkpoint(networks), UNetBackbone.load(networks, CPU)
    assert found.digest == backbone.checkpoint.digest
    return backbone


def middle_alpha(backbone: UNetBackbone) -> float:
    return schedule(backbone.scheduler_config, 50)[25].alpha_noisy


@pytest.mark.slow
def test_a_motion_adapter_brings_its_noise_levels(model: Path, motion: Path) -> None:
    """AnimateDiff's, said to the user; sampled as diffusers' pipeline does with the configuration published for it."""
    said: list[str] = []
    networks = ModelOptions(model=str(model), motion_adapter=str(motion))
    backbone = FateZero.load(networks, CPU, said.append).backbone
    assert middle_alpha(backbone) == pytest.approx(0.160, abs=2e-3)
    assert len(said) == 1
    assert "beta_schedule 'linear'" in said[0]
    theirs = AnimateDiffPipeline.from_pretrained(
        model,
        motion_adapter=MotionAdapter.from_pretrained(motion),
        scheduler=DDIMScheduler.from_pretrained(
            model, subfolder="scheduler", beta_schedule="linear", clip_sample=False, steps_offset=1
        ),
    ).to(torch.float64)
    theirs.set_progress_bar_config(disable=True)
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    made = theirs(
        PROMPT, 2, 64, 64, STEPS, guidance_scale=3.0, latents=start.transpose(0, 1)[None], output_type="latent"
    ).frames  # fmt: skip
    method = replace(IMAGE, guidance_scale=3)
    plan = FateZero(backbone, report=lambda _: None).plan(PROMPT, Target(prompt=PROMPT, method=method))
    with unet_denoiser(backbone, method, 2, None) as denoiser, torch.no_grad():
        ours = denoise(denoiser, plan, schedule(backbone.scheduler_config, method.steps), start)
    torch.testing.assert_close(ours, made[0].transpose(0, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_guidance_embedding_under_motion(parts: dict[str, Any], motion: Path) -> None:
    """A UNet that takes whole clips is told once for each branch."""
    unet = with_motion(distilled_unet(8), motion, "random").requires_grad_(requires_grad=False).eval().double()
    backbone = replace(backbone_of(parts, "LCMScheduler", STABLE), unet=unet)
    x, text = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(2)).double(), backbone.embed(PROMPT)
    ours = backbone.predict(x, 301, [text, text], 3, [1.0, 5.0])
    told = (
        pipeline(parts, parts["scheduler"])
        .get_guidance_scale_embedding(torch.tensor([0.0, 4.0]), embedding_dim=8)
        .double()
    )
    clips = x.unflatten(0, (2, 3)).transpose(1, 2)
    theirs = unet(clips, 301, text.hidden.expand(6, -1, -1), timestep_cond=told).sample.transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours[:3], backbone.predict(x, 301, [text, text], 3, [2.0, 5.0])[:3])


@pytest.mark.slow
def test_the_checkpoints_levels_may_be_chosen(model: Path, motion: Path) -> None:
    plain, chosen = UNetBackbone.load(str(model), CPU), video(model, motion, "checkpoint")
    assert chosen.scheduler_config == plain.scheduler_config
    assert not chosen.notes
    assert middle_alpha(chosen) == pytest.approx(0.275, abs=2e-3)
    left_open, asked = (video(model, motion, owner).checkpoint.digest for owner in (None, "adapter"))
    assert chosen.checkpoint.digest != left_open == asked
    with pytest.raises(UserError, match="there is no motion adapter"):
        ModelOptions(schedule="adapter")


@pytest.mark.slow
def test_a_video_pipelines_own_schedule_is_the_checkpoints(model: Path, motion: Path, tmp_path: Path) -> None:
    """Which AnimateDiffPipeline does not mend: one that clips is refused, one that knows no clipping is not."""
    placed = {"timestep_spacing": "leading", "steps_offset": 1}
    euler = own_scheduler("EulerDiscreteScheduler", STABLE | placed | {"beta_schedule": "linear"})
    pipe = AnimateDiffPipeline.from_pretrained(
        model, motion_adapter=MotionAdapter.from_pretrained(motion), scheduler=euler
    )
    pipe.save_pretrained(tmp_path / "video")
    backbone = UNetBackbone.load(str(tmp_path / "video"), CPU)
    assert middle_alpha(backbone) == pytest.approx(0.160, abs=2e-3)
    assert (backbone.checkpoint.schedule_owner, backbone.notes) == ("checkpoint", ())
    pipe.scheduler = DDIMScheduler.from_config(euler.config)
    pipe.save_pretrained(tmp_path / "video")
    with pytest.raises(UserError, match="set clip_sample to false"):
        UNetBackbone.load(str(tmp_path / "video"), CPU)


@pytest.mark.slow
def test_an_adapter_may_state_its_levels(model: Path, motion: Path) -> None:
    file = motion / "scheduler" / "scheduler_config.json"
    shutil.copytree(model / "scheduler", file.parent)
    stated, plain = video(model, motion), UNetBackbone.load(str(model), CPU)
    assert schedule(stated.scheduler_config, 50) == schedule(plain.scheduler_config, 50)
    assert (stated.checkpoint.schedule_owner, stated.notes) == ("adapter", ())
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"rescale_betas_zero_snr": True}), encoding="utf-8")
    with pytest.raises(UserError, match=r"motion adapter's noise levels: .* pure noise"):
        video(model, motion)


@pytest.mark.parametrize(
    ("stated", "sentence"),
    [
        (STABLE | {"prediction_type": "v_prediction"}, "the checkpoint's is 'epsilon'"),
        (STABLE | {"thresholding": True}, "thresholding is True"),
        (STABLE | {"_class_name": "os.system"}, "of the class"),
        ({"beta_start": 0.1}, "states no beta_end"),
    ],
)
def test_what_an_adapter_states_is_vetted(motion: Path, stated: dict[str, Any], sentence: str) -> None:
    file = motion / "scheduler" / "scheduler_config.json"
    file.parent.mkdir()
    file.write_text(json.dumps(stated), encoding="utf-8")
    with pytest.raises(UserError, match=sentence):
        with_adapter_levels(STABLE, motion)


def test_the_shipped_adapter_was_trained_with_the_shipped_models_levels() -> None:
    model, motion = (
        json.loads((folder / SCHEDULER_FILE).read_text(encoding="utf-8"))
        for folder in (shipped.CHECKPOINT, shipped.MOTION)
    )
    assert describe_change(model, with_adapter_levels(model, shipped.MOTION)) == ()
    assert motion == model
