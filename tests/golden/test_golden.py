"""The original FateZero's own numbers, reproduced from its start latents through the public API.

The cases were recorded from the authors' code in float64 (see README.md beside this). Where the original has a bug
that is not worth having, a helper here brings the bug back, to prove that all the rest is equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import fatezero.attention.alignment as alignment
from fatezero.attention.alignment import Prompt, WordMap
from fatezero.attention.store import KeepMaps, KeepQueriesAndKeys, MemoryStore
from fatezero.attention.temporal import inflate
from fatezero.blending.mask import WordMask
from fatezero.config import BlendingConfig, FusionConfig, MethodConfig
from fatezero.diffusion.backbone import Backbone
from fatezero.diffusion.ddim import schedule
from fatezero.diffusion.denoiser import video_denoiser
from fatezero.diffusion.inversion import Keeping, Needs, invert
from fatezero.editing import EditStep, LatentBlender, edit, plan_edit

RIGHT_REPLACEMENT_MAP = alignment.replacement_map
CASES = Path(__file__).parent / "cases"
QUICK = {
    "z_maps": ("recompute", "qk", "maps"),
    "p_limit8_blend_sa": ("recompute", "qk"),
    "l_multi_token_replace": ("qk",),
    "m_random_temporal_bias": ("recompute",),
}
NAMES = sorted(path.stem for path in CASES.glob("*.yaml"))

# The original's own float32 run against its float64 one: inversion, first edit step, edited latents, frames.
FLOAT32_OF_THE_ORIGINAL = {
    "a256_style_mid": (5.8e-06, 3.5e-05, 1.2e-04, 1.3e-05),
    "a50_style_mid_50steps": (2.9e-06, 3.1e-06, 7.8e-05, 4.2e-06),
    "a_style_mid": (6.7e-06, 2.0e-05, 1.7e-04, 2.4e-05),
    "b_style_own_mid": (4.3e-06, 1.6e-05, 4.9e-05, 1.1e-05),
    "c_style_prev_first": (2.9e-06, 2.0e-05, 1.0e-04, 1.1e-05),
    "d2_replace_blend_sa_th": (5.2e-06, 1.8e-05, 1.9e-02, 2.8e-03),
    "d_replace_blend_sa": (2.5e-05, 2.2e-05, 1.4e-02, 3.8e-04),
    "e_refine_blend_sa": (2.9e-06, 2.5e-05, 6.3e-03, 8.1e-04),
    "f_no_fusion": (2.6e-06, 1.6e-05, 1.3e-02, 7.3e-04),
    "g_no_st": (4.0e-06, 1.4e-04, 6.5e-04, 9.4e-05),
    "h_least_sc": (4.7e-06, 1.8e-05, 7.9e-05, 1.2e-05),
    "i_latent_blend": (3.8e-06, 7.2e-05, 1.1e-02, 8.4e-04),
    "j_reconstruct": (5.1e-06, 1.7e-05, 1.0e-04, 7.9e-06),
    "k5_5frames": (1.0e-05, 1.5e-05, 7.2e-05, 1.1e-05),
    "k_16frames": (4.5e-06, 1.3e-05, 5.7e-05, 8.6e-06),
    "l2_multi_token_refine": (2.9e-06, 1.2e-05, 2.8e-05, 5.0e-06),
    "l_multi_token_replace": (2.9e-06, 1.3e-05, 2.4e-04, 2.9e-05),
    "m_random_temporal_bias": (2.2e-06, 1.3e-05, 8.0e-05, 8.5e-06),
    "n_default_index": (2.6e-06, 1.6e-05, 5.9e-05, 1.2e-05),
    "o_cross_per_word": (3.1e-06, 1.2e-05, 1.8e-04, 1.5e-05),
    "p_limit8_blend_sa": (2.7e-06, 1.6e-05, 1.1e-03, 2.3e-04),
    "q_limit8_latent_blend": (2.9e-06, 1.6e-05, 6.5e-03, 3.6e-04),
    "z_maps": (1.7e-06, 2.7e-05, 4.0e-05, 8.3e-06),
}


@dataclass(frozen=True)
class Case:
    """A recorded run in our own terms."""

    name: str
    source: str
    target: str
    method: MethodConfig
    edited_words: tuple[str, ...]
    target_words: tuple[str, ...]
    arrays: dict[str, np.ndarray]

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key]).double()

    def masks(self, prefix: str) -> Iterator[tuple[int, np.ndarray]]:
        """Edit step and recorded masks of a kind."""
        for key, packed in self.arrays.items():
            if key.startswith(prefix):
                shape = self.arrays[f"shape_{key}"]
                yield (
                    int(key.split("step")[1][:2]),
                    np.unpackbits(packed, count=int(shape.prod())).reshape(shape).astype(bool),
                )


def _window(value: Any) -> tuple[float, float]:
    return (0.0, float(value)) if isinstance(value, int | float) else (float(value[0]), float(value[1]))


def _key_frames(config: dict[str, Any]) -> tuple[Any, ...]:
    named = {"mid": "middle", 0: "self"}
    return tuple(named.get(key, key) for key in config.get("SparseCausalAttention_index", [-1, "first"]))


def read_case(name: str) -> Case:
    stated = yaml.safe_load((CASES / f"{name}.yaml").read_text())
    p2p, model = stated["p2p"], stated["model_config"]
    every_level = stated["token_limit"] == 1024 and stated["height"] <= 256
    fusion = blending = None
    words: tuple[tuple[str, ...], ...] = ((), ())
    if p2p:
        windows = {word: _window(window) for word, window in p2p["cross_replace_steps"].items()}
        weights = p2p.get("eq_params", {"words": [], "values": []})
        fusion = FusionConfig(
            word_map="replace" if p2p["is_replace_controller"] else "refine",
            cross_window=windows.pop("default_"),
            word_windows=windows,
            self_window=_window(p2p["self_replace_steps"]),
            reweight=dict(zip(weights["words"], weights["values"], strict=True)),
            min_downsampling=1 if every_level else 2,
        )
        if "blend_words" in p2p:
            words = (tuple(p2p["blend_words"][0]), tuple(p2p["blend_words"][1]))
            # The original blends latents after steps 2..6 of 10.
            latent_window = (0.2, 0.7) if p2p.get("blend_latents") else None
            blending = BlendingConfig(threshold=p2p["blend_th"][0], latent_window=latent_window)
    method = MethodConfig(
        steps=stated["num_inference_steps"],
        guidance_scale=stated["guidance_scale"],
        key_frames=_key_frames(model),
        key_frames_min_width=model.get("least_sc_channel", 0),
        norm_scope="clip",
        fusion=fusion,
        blending=blending,
    )
    with np.load(CASES / f"{name}.npz") as arrays:
        return Case(name, stated["source_prompt"], stated["target_prompt"], method, *words, dict(arrays))


@dataclass
class Run:
    """What our code made of a case."""

    timesteps: list[int]
    inverted: Tensor
    steps: list[EditStep]
    decoded: Tensor


def run_case(backbone: Backbone, case: Case, keep: Callable[[], Any] | None) -> Run:
    steps = schedule(backbone.scheduler_config, case.method.steps)
    plan = plan_edit(backbone, case.method, steps, case.source, case.target, case.edited_words, case.target_words)
    keeping = Keeping(keep(), MemoryStore(torch.device("cpu")), plan.needs) if keep and plan.needs else None
    seen: list[EditStep] = []
    clean = case.tensor("z0").to(backbone.dtype)
    with video_denoiser(backbone, case.method, len(clean), chunk=None) as denoiser:
        downsampling = case.method.blending.mask_downsampling if case.method.blending else None
        trajectory = invert(denoiser, clean, case.source, steps, downsampling, keeping)
        latents = edit(denoiser, plan, trajectory.latents[-1], trajectory, seen.append)
    index = int(case.arrays["decoded_index"])
    return Run(
        [step.timestep for step in steps],
        trajectory.latents[-1],
        seen,
        backbone.decode(latents[index : index + 1])[0],
    )


def compare(case: Case, run: Run, tolerances: tuple[float, float, float, float], wrong_mask_pixels: int) -> None:
    inversion, first, edited, decoded = tolerances
    frames = case.arrays["frames"]
    assert run.timesteps[::-1] == case.arrays["timesteps"].tolist()
    _close(run.inverted[frames], case.tensor("inverted"), inversion)
    for k, index in enumerate(case.arrays["edit_steps"]):
        _close(run.steps[index].latents[frames], case.tensor("edited")[k], first if index == 0 else edited)
    y0, y1, x0, x1 = case.arrays["decoded_crop"]
    _close(run.decoded[:, y0:y1, x0:x1].permute(1, 2, 0), case.tensor("decoded"), decoded)
    assert _wrong_mask_pixels(case, run) <= wrong_mask_pixels


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance)


def _wrong_mask_pixels(case: Case, run: Run) -> int:
    wrong = 0
    for step, theirs in case.masks("mask_attn_"):
        mask = run.steps[step].attention_mask
        assert mask is not None
        wrong += int((mask.hard(theirs.shape[-2:]).numpy() != theirs[0]).sum())
    for step, theirs in case.masks("mask_latent_"):
        if run.steps[step].latent_masks:  # the original computes masks in steps where it does not use them, too
            source, target = (mask.hard(theirs.shape[-2:]).numpy() for mask in run.steps[step].latent_masks)
            wrong += int((np.stack([source, source | target]) != theirs).sum())
    return wrong


def bring_back_bugs(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the original gets wrong in this case."""
    if case.name == "l_multi_token_replace":
        monkeypatch.setattr(alignment, "replacement_map", _shifted_replacement_map)
    if case.method.blending and case.method.blending.latent_window:
        monkeypatch.setattr(LatentBlender, "_source_latents", _noisier_source_latents)


def _shifted_replacement_map(source: Prompt, target: Prompt, context: int) -> WordMap:
    """After the last changed word the original matches columns by the target's index alone."""
    right = RIGHT_REPLACEMENT_MAP(source, target, context)
    changed = [t for (a, _), (b, t) in zip(source.words, target.words, strict=True) if a != b]
    behind = changed[-1][-1] + 1
    from_source = right.from_source.clone()
    from_source[:, behind:] = 0
    from_source[range(behind, context), range(behind, context)] = 1
    return WordMap(from_source, torch.zeros(context, dtype=torch.float64))


def _noisier_source_latents(self: LatentBlender, index: int) -> Tensor:
    """The original blends with the inverted latent one level too noisy."""
    return self._trajectory.latents[len(self._plan.steps) - index]


def with_temporal_layers(backbone: Backbone, case: Case) -> Backbone:
    """With the original's temporal layers where the case has recorded their biases, which it leaves random."""
    biases = {key.removeprefix("bias/"): value for key, value in case.arrays.items() if key.startswith("bias/")}
    if not biases:
        return backbone
    inflated = replace(backbone, unet=deepcopy(backbone.unet))
    inflate(inflated.unet, rank=160)
    parameters = dict(inflated.unet.named_parameters())
    assert {name for name in parameters if name.endswith("attn_temporal.to_out.0.bias")} == biases.keys()
    with torch.no_grad():
        for name, bias in biases.items():
            parameters[name].copy_(torch.from_numpy(bias))
    return inflated


def _cases() -> list[Any]:
    pairs = [(name, backend) for name in NAMES for backend in ("recompute", "qk", "maps")]
    return [pytest.param(*pair, marks=() if pair[1] in QUICK.get(pair[0], ()) else pytest.mark.slow) for pair in pairs]


@pytest.mark.parametrize(("name", "backend"), _cases())
def test_float64_equals_the_original(
    name: str, backend: str, backbone64: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = read_case(name)
    keep = {"recompute": None, "qk": KeepQueriesAndKeys, "maps": KeepMaps}[backend]
    bring_back_bugs(case, monkeypatch)
    run = run_case(with_temporal_layers(backbone64, case), case, keep)
    compare(case, run, (1e-5, 1e-5, 1e-5, 1e-5), wrong_mask_pixels=0)


@pytest.mark.parametrize(("name", "backend"), _cases())
def test_float32_is_as_near_as_the_originals_own(
    name: str, backend: str, backbone32: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = read_case(name)
    keep = {"recompute": None, "qk": KeepQueriesAndKeys, "maps": KeepMaps}[backend]
    inversion, first, edited, decoded = (10 * x for x in FLOAT32_OF_THE_ORIGINAL[name])
    bring_back_bugs(case, monkeypatch)
    run = run_case(with_temporal_layers(backbone32, case), case, keep)
    # A soft mask within rounding of the threshold may fall on either side.
    compare(case, run, (inversion, first, edited, decoded), wrong_mask_pixels=2)


def test_the_bugs_matter(backbone64: Backbone) -> None:
    """Without the helper the shifted words of the original are not reproduced: the default does it right."""
    case = read_case("l_multi_token_replace")
    run = run_case(backbone64, case, KeepQueriesAndKeys)
    _close(run.inverted[case.arrays["frames"]], case.tensor("inverted"), 1e-5)
    last = case.arrays["edit_steps"][-1]
    assert (run.steps[last].latents[case.arrays["frames"]] - case.tensor("edited")[-1]).abs().max() > 0.1


def test_recorded_maps_equal_the_originals(backbone64: Backbone) -> None:
    """Single attention maps of the inversion, layer by layer, as the original stores them."""
    case = read_case("z_maps")
    steps = schedule(backbone64.scheduler_config, case.method.steps)
    everything = Needs(frozenset(site.name for site in backbone64.sites), frozenset(range(4)), frozenset(range(4)))
    keeping = Keeping(KeepMaps(), MemoryStore(torch.device("cpu")), everything)
    with video_denoiser(backbone64, case.method, len(case.arrays["z0"]), chunk=None) as denoiser:
        invert(denoiser, case.tensor("z0"), case.source, steps, keeping=keeping)
    with np.load(CASES / "z_maps_some.npz") as theirs:
        assert len(theirs.files) == 4
        for key in theirs.files:
            step, place, layer = key.split(".")
            block, kind = place.split("_")
            names = [s.name for s in backbone64.sites if s.block == block and s.kind == kind]
            recording = keeping.store.get((int(step.removeprefix("step")), 0), torch.device("cpu"))
            _close(recording[f"{names[int(layer)]}/maps"], torch.from_numpy(theirs[key]).double(), 1e-5)


def test_the_mask_of_a_frame_without_attention_is_empty() -> None:
    """And not NaN."""
    assert not WordMask(torch.zeros(1, 4, 4), threshold=0.3).hard((8, 8)).any()
