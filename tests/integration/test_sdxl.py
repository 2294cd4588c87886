"""SDXL: what diffusers' own pipeline gives, and the method a second time by `tests.golden.reference`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
)
from torch import Tensor

from fatezero.attention.mask_layers import MaskLayers
from fatezero.config import BlendingConfig, FusionConfig, MethodConfig, RuntimeConfig
from fatezero.diffusion.ddim import schedule
from fatezero.diffusion.inversion import invert
from fatezero.diffusion.model_families.unet import UNetBackbone, unet_denoiser
from fatezero.diffusion.pixels import to_unit_range
from fatezero.edit_plan import plan_edit
from fatezero.editing import EditStep, denoise, edit
from fatezero.pipeline import FateZero
from fatezero.source_attention.backends import KeepMaps, KeepQueriesAndKeys, SourceAttention
from fatezero.source_attention.stores import MemoryStore
from tests.golden.reference import Computed, Maps, Reference
from tests.integration.sdxl_checkpoints import POOLED, change, tiny_sdxl

pytestmark = pytest.mark.slow

SOURCE, TARGET = "a silver jeep driving down a road", "a silver car driving down a long road"
QUIET = RuntimeConfig(device="cpu", dtype="float32")
DOUBLE = RuntimeConfig(device="cpu", dtype="float64")
PLAIN = MethodConfig(steps=4, key_frames=(), norm_scope="frame", fusion=None, blending=None)
FULL = MethodConfig(
    steps=5,
    fusion=FusionConfig(cross_window=(0.0, 0.8), self_window=(0.0, 0.6)),
    blending=BlendingConfig(threshold=0.8, latent_window=(0.2, 0.6)),  # steps 1 and 2, as the original counts
)
# The same, in the words of FateZero's own configurations.
FULL_CONFIG: dict[str, Any] = {
    "dataset_config": {"prompt": SOURCE},
    "model_config": {"SparseCausalAttention_index": [0, "mid"]},
    "editing_config": {
        "editing_prompts": [TARGET],
        "num_inference_steps": 5,
        "guidance_scale": 7.5,
        "prompt2prompt_edit": True,
        "p2p_config": {
            0: {
                "cross_replace_steps": {"default_": 0.8},
                "self_replace_steps": 0.6,
                "is_replace_controller": False,
                "blend_words": [["jeep"], ["car"]],
                "blend_self_attention": True,
                "blend_latents": True,
                "blend_th": [0.8],
            }
        },
    },
}
BACKENDS: dict[str, Callable[[], Any] | None] = {"recompute": None, "qk": KeepQueriesAndKeys, "maps": KeepMaps}


@pytest.fixture(scope="module")
def saved(golden_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SDXL checkpoint's folder; not to be written to."""
    folder = tmp_path_factory.mktemp("sdxl")
    tiny_sdxl(golden_folder).save_pretrained(folder)
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture(scope="module")
def backbone(saved: Path) -> UNetBackbone:
    return UNetBackbone.load(str(saved), QUIET)


def theirs(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    pipe = StableDiffusionXLPipeline.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True, add_watermarker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise(frames: int, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(frames, 4, height, width, generator=torch.Generator().manual_seed(1))


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * max(1.0, float(theirs.detach().abs().max())))


def frames_of(count: int = 2, height: int = 128, width: int = 128) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, height, width, 3), np.uint8)


# What diffusers' own pipeline gives


@pytest.mark.parametrize("zeros", [True, False])
def test_prompts_are_told_as_diffusers_tells_them(model: Path, zeros: bool) -> None:
    """With the second tokenizer's own padding, which changes what its encoder says of every place behind the end."""
    change(model / "model_index.json", force_zeros_for_empty_prompt=zeros)
    backbone, pipe = UNetBackbone.load(str(model), QUIET), theirs(model)
    hidden, no_hidden, pooled, no_pooled = pipe.encode_prompt(SOURCE, device="cpu")
    told, nothing = backbone.embed(SOURCE), backbone.embed_negative("")
    assert told.pooled is not None
    assert nothing.pooled is not None
    assert told.hidden.shape == (1, 77, 32 + 24)
    assert told.pooled.shape == (1, POOLED)
    for ours, wanted in ((told.hidden, hidden), (told.pooled, pooled)):
        close(ours, wanted)
    for ours, wanted in ((nothing.hidden, no_hidden), (nothing.pooled, no_pooled)):
        close(ours, wanted)
        assert bool(ours.any()) is not zeros
    assert pipe.tokenizer_2(SOURCE, padding="max_length").input_ids[-1] == 0
    assert pipe.tokenizer(SOURCE, padding="max_length").input_ids[-1] != 0


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler])
def test_a_sampled_image_equals_diffusers(saved: Path, tmp_path: Path, scheduler: Any) -> None:
    """Guided, of another height than width; by the schedule of SDXL's own configuration, walked by DDIM."""
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    settings = json.loads((saved / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    settings |= {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}
    scheduler.from_config(settings).save_pretrained(folder / "scheduler")
    pipe = theirs(saved)
    pipe.scheduler = DDIMScheduler.from_config(settings)
    start = noise(1, 8, 16)
    sizes = {"height": 64, "width": 128}
    (wanted,) = pipe(SOURCE, num_inference_steps=4, guidance_scale=7.5, latents=start, output_type="np", **sizes).images
    backbone = UNetBackbone.load(str(folder), QUIET)
    plan = plan_edit(backbone, PLAIN, 4, "", SOURCE, (), ())
    with unet_denoiser(backbone, PLAIN, 1, None) as denoiser, torch.no_grad():
        ours = backbone.decode(denoise(denoiser, plan, schedule(backbone.scheduler_config, 4), start))
    close(ours[0].permute(1, 2, 0), torch.from_numpy(wanted))


def test_the_inversion_is_diffusers_ddim_walked_backwards(saved: Path, backbone: UNetBackbone) -> None:
    """Each frame by itself: what the UNet of diffusers says, and a step of its scheduler takes back what we did."""
    pipe, clean, steps = theirs(saved), noise(2, 8, 16), schedule(backbone.scheduler_config, 4)
    with unet_denoiser(backbone, PLAIN, 2, None) as denoiser, torch.no_grad():
        trajectory = invert(denoiser, clean, SOURCE, steps)
    hidden, _, pooled, _ = pipe.encode_prompt(SOURCE, device="cpu", do_classifier_free_guidance=False)
    told = {"text_embeds": pooled, "time_ids": torch.tensor([[64, 128, 0, 0, 64, 128]])}
    pipe.scheduler.set_timesteps(4)
    for i, timestep in enumerate(pipe.scheduler.timesteps.flip(0)):
        for frame in range(2):
            before, after = trajectory.latents[i : i + 2, frame : frame + 1]
            with torch.no_grad():
                said = pipe.unet(before, timestep, hidden, added_cond_kwargs=told).sample
            close(pipe.scheduler.step(said, timestep, after).prev_sample, before)


def test_pictures_are_encoded_and_decoded_as_diffusers_does(golden_folder: Path, tmp_path: Path) -> None:
    """With a mean and a deviation of each channel, too, where the autoencoder states them."""
    tiny_sdxl(golden_folder).save_pretrained(tmp_path)
    mean, deviation = [-1.6, 1.1, 3.0, -0.5], [8.4, 5.9, 1.0, 0.2]
    pictures = to_unit_range(frames_of()).float()
    for settings in ({}, {"latents_mean": mean, "latents_std": deviation}):
        change(tmp_path / "vae" / "config.json", **settings)
        backbone, pipe = UNetBackbone.load(str(tmp_path), QUIET), theirs(tmp_path)
        latents = backbone.encode(pictures)
        (wanted,) = pipe("", num_inference_steps=1, latents=latents[:1], output_type="np", denoising_end=0.0001).images
        close(backbone.decode(latents)[0].permute(1, 2, 0), torch.from_numpy(wanted))
        raw = pipe.vae.encode(pictures * 2 - 1).latent_dist.mode()
        if settings:
            shift, spread = (torch.tensor(values)[None, :, None, None] for values in (mean, deviation))
            raw = (raw - shift) / spread
        close(latents, (raw * 0.13025).detach())


# The method a second time


class SdxlReference(Reference):
    """The reference, told of prompts and sizes as SDXL is."""

    def _embed(self, prompt: str) -> Any:
        if not prompt:  # what a checkpoint says that forces zeros
            return [torch.zeros_like(text) for text in self._embed(self.source)]
        states = []
        for tokenizer, encoder in (
            (self.pipe.tokenizer, self.pipe.text_encoder),
            (self.pipe.tokenizer_2, self.pipe.text_encoder_2),
        ):
            ids = tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
            states.append(encoder(ids, output_hidden_states=True))
        end = states[1].last_hidden_state[:, len(self._ids(prompt)) - 1]
        return [torch.cat([s.hidden_states[-2] for s in states], -1), self.pipe.text_encoder_2.text_projection(end)]

    def _predict(self, latents: Tensor, timestep: int, texts: list[Any]) -> list[Tensor]:
        self.branches = len(texts)
        hidden = torch.cat([text[0].expand(self.frames, -1, -1) for text in texts])
        pooled = torch.cat([text[1].expand(self.frames, -1) for text in texts])
        rows, columns = (8 * side for side in latents.shape[-2:])
        sizes = torch.tensor([[rows, columns, 0, 0, rows, columns]]).expand(len(hidden), -1)
        told = {"text_embeds": pooled, "time_ids": sizes}
        batch = torch.cat([latents] * len(texts))
        return list(self.pipe.unet(batch, timestep, hidden, added_cond_kwargs=told).sample.chunk(len(texts)))

    def _mask_layers(self, maps: Maps) -> list[str]:
        places = ("down_blocks.2.", "up_blocks.0.")
        return [name for name in self.layers if name.startswith(places) and name.endswith("attn2")]


def run_full(
    backbone: UNetBackbone, clean: Tensor, backend: str, chunk: int | None = None
) -> tuple[Computed, list[Any]]:
    keep, steps, seen = BACKENDS[backend], schedule(backbone.scheduler_config, FULL.steps), list[EditStep]()
    plan = plan_edit(backbone, FULL, FULL.steps, SOURCE, TARGET, ("jeep",), ("car",))
    attention = SourceAttention(keep(), MemoryStore(torch.device("cpu")), plan.needs) if keep else None
    with unet_denoiser(backbone, FULL, len(clean), chunk) as denoiser, torch.no_grad():
        trajectory = invert(denoiser, clean, SOURCE, steps, MaskLayers(4), attention)
        latents = edit(denoiser, plan, trajectory, seen.append)
    return Computed(trajectory.latents[-1], [step.latents for step in seen], decoded=backbone.decode(latents)), seen


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_full_method_equals_the_reference(saved: Path, backend: str) -> None:
    """In float64 to 1e-9: inversion, every step of the edit, masks and pictures."""
    clean = noise(3).double()
    wanted = SdxlReference(theirs(saved, torch.float64), FULL_CONFIG, {}, bugs=False).run(clean)
    ours, steps = run_full(UNetBackbone.load(str(saved), DOUBLE), clean, backend)
    close(ours.inverted, wanted.inverted, 1e-9)
    for mine, his in zip(ours.edited, wanted.edited, strict=True):
        close(mine, his, 1e-9)
    close(ours.decoded, wanted.decoded.detach(), 1e-9)
    masks = {s.index: s.attention_mask.hard((16, 16)) for s in steps if s.attention_mask}
    assert masks.keys() == wanted.attention_masks.keys()
    assert all(torch.equal(mask, wanted.attention_masks[index]) for index, mask in masks.items())
    assert any(0 < float(mask.float().mean()) < 1 for mask in masks.values()), "a mask that says something"
    assert len(wanted.latent_masks) == sum(bool(s.latent_masks) for s in steps) > 0


def test_backends_agree_in_float32(backbone: UNetBackbone) -> None:
    wanted, _ = run_full(backbone, noise(3), "recompute")
    for backend in ("qk", "maps"):
        ours, _ = run_full(backbone, noise(3), backend)
        close(ours.edited[-1], wanted.edited[-1])


def test_chunks_agree(saved: Path) -> None:
    """In float64, where rounding cannot grow to what a chunk forgotten would make."""
    backbone = UNetBackbone.load(str(saved), DOUBLE)
    editor = FateZero(backbone, replace(DOUBLE, backend="qk"), report=lambda _: None)
    chunked = FateZero(backbone, replace(DOUBLE, backend="recompute", chunk=1), report=lambda _: None)
    method = replace(FULL, steps=2, norm_scope="frame")
    words = {"edited_words": ("jeep",), "target_words": ("car",)}
    whole, cut = (one.edit(frames_of(3), SOURCE, TARGET, **words, method=method) for one in (editor, chunked))
    close(cut.latents, whole.latents, 1e-9)
