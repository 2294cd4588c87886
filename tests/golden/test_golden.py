"""FateZero's own configurations through the package, held to the original's results and to a second computation.

Each case is read from the original's YAML as a user's manifest is. Its results are held to `reference.py`, computed on
the spot in float64, to 1e-9; and to the recording of the authors' code (see README.md), within what rounding on
another machine changes. Where the original has a bug that is not worth having, a helper here brings the bug back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fatezero.attention import word_maps
from fatezero.attention.mask_layers import mask_layers
from fatezero.attention.prompts import Prompt
from fatezero.attention.temporal import inflate
from fatezero.attention.word_maps import WordMap
from fatezero.blending.mask import WordMask
from fatezero.config import MethodConfig
from fatezero.data.manifest import read_manifest
from fatezero.diffusion.ddim import schedule
from fatezero.diffusion.inversion import SourceStep, invert
from fatezero.diffusion.model_families.unet import UNetBackbone, unet_denoiser
from fatezero.diffusion.recommendations import with_settings
from fatezero.edit_plan import plan_edit
from fatezero.editing import EditStep, edit
from fatezero.source_attention.backends import KeepMaps, KeepQueriesAndKeys, SourceAttention
from fatezero.source_attention.needs import Needs
from fatezero.source_attention.stores import MemoryStore
from fatezero.types import EditRequest
from tests.golden.recordings import CASE_NAMES, CASES, Recording, read_recording
from tests.golden.reference import Computed, Reference, load_networks
from tests.golden.sensitivity import Differences, measure, sensitivities, tolerances

RIGHT_REPLACEMENT_MAP = word_maps.replacement_map
BACKENDS: dict[str, Callable[[], Any] | None] = {"recompute": None, "qk": KeepQueriesAndKeys, "maps": KeepMaps}
QUICK = {"z_maps", "k_16frames", "m_random_temporal_bias"}
TO_THE_REFERENCE = 1e-9  # both run in float64 here, where this model amplifies rounding by up to 1e5

# The original's own float32 run against its float64 one.
FLOAT32_OF_THE_ORIGINAL = {
    "a256_style_mid": Differences(5.8e-06, 3.5e-05, 1.2e-04, 1.3e-05),
    "a50_style_mid_50steps": Differences(2.9e-06, 3.1e-06, 7.8e-05, 4.2e-06),
    "a_style_mid": Differences(6.7e-06, 2.0e-05, 1.7e-04, 2.4e-05),
    "b_style_own_mid": Differences(4.3e-06, 1.6e-05, 4.9e-05, 1.1e-05),
    "c_style_prev_first": Differences(2.9e-06, 2.0e-05, 1.0e-04, 1.1e-05),
    "d2_replace_blend_sa_th": Differences(5.2e-06, 1.8e-05, 1.9e-02, 2.8e-03),
    "d_replace_blend_sa": Differences(2.5e-05, 2.2e-05, 1.4e-02, 3.8e-04),
    "e_refine_blend_sa": Differences(2.9e-06, 2.5e-05, 6.3e-03, 8.1e-04),
    "f_no_fusion": Differences(2.6e-06, 1.6e-05, 1.3e-02, 7.3e-04),
    "g_no_st": Differences(4.0e-06, 1.4e-04, 6.5e-04, 9.4e-05),
    "h_least_sc": Differences(4.7e-06, 1.8e-05, 7.9e-05, 1.2e-05),
    "i_latent_blend": Differences(3.8e-06, 7.2e-05, 1.1e-02, 8.4e-04),
    "j_reconstruct": Differences(5.1e-06, 1.7e-05, 1.0e-04, 7.9e-06),
    "k5_5frames": Differences(1.0e-05, 1.5e-05, 7.2e-05, 1.1e-05),
    "k_16frames": Differences(4.5e-06, 1.3e-05, 5.7e-05, 8.6e-06),
    "l2_multi_token_refine": Differences(2.9e-06, 1.2e-05, 2.8e-05, 5.0e-06),
    "l_multi_token_replace": Differences(2.9e-06, 1.3e-05, 2.4e-04, 2.9e-05),
    "m_random_temporal_bias": Differences(2.2e-06, 1.3e-05, 8.0e-05, 8.5e-06),
    "n_default_index": Differences(2.6e-06, 1.6e-05, 5.9e-05, 1.2e-05),
    "o_cross_per_word": Differences(3.1e-06, 1.2e-05, 1.8e-04, 1.5e-05),
    "p_limit8_blend_sa": Differences(2.7e-06, 1.6e-05, 1.1e-03, 2.3e-04),
    "q_limit8_latent_blend": Differences(2.9e-06, 1.6e-05, 6.5e-03, 3.6e-04),
    "z_maps": Differences(1.7e-06, 2.7e-05, 4.0e-05, 8.3e-06),
}


@dataclass(frozen=True)
class GoldenCase:
    """A recorded run, and the edit that the package reads from its configuration."""

    recording: Recording
    request: EditRequest
    method: MethodConfig

    @classmethod
    def read(cls, name: str) -> GoldenCase:
        (request,) = read_manifest(CASES / f"{name}.yaml").requests
        method = with_settings(MethodConfig(), request.settings, name)
        recording = read_recording(name)
        if "patched_token_limit" in recording.config:  # a change of the authors' code, which no configuration states
            assert method.fusion
            method = dataclasses.replace(method, fusion=dataclasses.replace(method.fusion, min_downsampling=2))
        return cls(recording, request, method)


@dataclass
class CaseRun:
    """What our code made of a case."""

    timesteps: list[int]
    inverted: Tensor
    steps: list[EditStep]
    decoded: Tensor


def run_case(backbone: UNetBackbone, case: GoldenCase, backend: str) -> CaseRun:
    backbone = with_temporal_layers(backbone, case)
    method, request, keep = case.method, case.request, BACKENDS[backend]
    steps = schedule(backbone.scheduler_config, method.steps)
    prompts, words = (request.source_prompt, request.target_prompt), (request.edited_words, request.target_words)
    plan = plan_edit(backbone, method, len(steps), *prompts, *words)
    attention = SourceAttention(keep(), MemoryStore(torch.device("cpu")), plan.needs) if keep and plan.needs else None
    seen: list[EditStep] = []
    clean = case.recording.tensor("z0").to(backbone.dtype)
    with unet_denoiser(backbone, method, len(clean), chunk_size=None) as denoiser:
        layers = mask_layers(method.blending) if method.blending else None
        trajectory = invert(denoiser, clean, request.source_prompt, steps, layers, attention)
        latents = edit(denoiser, plan, trajectory, seen.append)
    return CaseRun([step.timestep for step in steps], trajectory.latents[-1], seen, backbone.decode(latents))


def with_temporal_layers(backbone: UNetBackbone, case: GoldenCase) -> UNetBackbone:
    """With the original's temporal layers where the case has recorded their biases, which it leaves random."""
    biases = case.recording.biases
    if not biases:
        return backbone
    inflated = dataclasses.replace(backbone, unet=deepcopy(backbone.unet))
    inflate(inflated.unet, rank=160)
    parameters = dict(inflated.unet.named_parameters())
    assert {name for name in parameters if name.endswith("attn_temporal.to_out.0.bias")} == biases.keys()
    with torch.no_grad():
        for name, bias in biases.items():
            parameters[name].copy_(torch.from_numpy(bias))
    return inflated


def compare_with_recording(case: GoldenCase, run: CaseRun, within: Differences, wrong_mask_pixels: int) -> None:
    recording = case.recording
    frames = recording.arrays["frames"]
    assert run.timesteps[::-1] == recording.arrays["timesteps"].tolist()
    _close(run.inverted[frames], recording.tensor("inverted"), within.inversion)
    for k, index in enumerate(recording.edit_steps):
        tolerance = within.edited if index else within.first
        _close(run.steps[index].latents[frames], recording.tensor("edited")[k], tolerance)
    _close(recording.decoded_part(run.decoded), recording.tensor("decoded"), within.decoded)
    assert _wrong_mask_pixels(case, run) <= wrong_mask_pixels


def compare_with_reference(computed: Computed, run: CaseRun) -> None:
    _close(run.inverted, computed.inverted, TO_THE_REFERENCE)
    for step, latents in zip(run.steps, computed.edited, strict=True):
        _close(step.latents, latents, TO_THE_REFERENCE)
        size = (latents.shape[-2], latents.shape[-1])
        attention, latent = computed.attention_masks.get(step.index), computed.latent_masks.get(step.index)
        assert (step.attention_mask is None) == (attention is None)
        assert bool(step.latent_masks) == (latent is not None)
        if step.attention_mask and attention is not None:
            assert torch.equal(step.attention_mask.hard(size), attention)
        if latent is not None:
            source, target = (mask.hard(size) for mask in step.latent_masks)
            assert torch.equal(torch.stack([source, source | target]), latent)
    _close(run.decoded, computed.decoded, TO_THE_REFERENCE)


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=tolerance)


def _wrong_mask_pixels(case: GoldenCase, run: CaseRun) -> int:
    wrong = 0
    for step, theirs in case.recording.masks("mask_attn_"):
        mask = run.steps[step].attention_mask
        assert mask is not None
        wrong += int((mask.hard(theirs.shape[-2:]).numpy() != theirs[0]).sum())
    for step, theirs in case.recording.masks("mask_latent_"):
        if run.steps[step].latent_masks:  # the original computes masks in steps where it does not use them, too
            source, target = (mask.hard(theirs.shape[-2:]).numpy() for mask in run.steps[step].latent_masks)
            wrong += int((np.stack([source, source | target]) != theirs).sum())
    return wrong


def bring_back_bugs(case: GoldenCase, monkeypatch: pytest.MonkeyPatch) -> bool:
    """What the original gets wrong in this case: whether there is anything."""
    shifted = case.recording.name == "l_multi_token_replace"
    noisier = case.method.blending is not None and case.method.blending.latent_window is not None
    if shifted:
        monkeypatch.setattr(word_maps, "replacement_map", _shifted_replacement_map)
    if noisier:
        monkeypatch.setattr(SourceStep, "next_latents", property(_noisier_latents))
    return shifted or noisier


def _shifted_replacement_map(source: Prompt, target: Prompt) -> WordMap:
    """After the last changed word the original matches columns by the target's index alone."""
    right = RIGHT_REPLACEMENT_MAP(source, target)
    changed = [t for (a, _), (b, t) in zip(source.words, target.words, strict=True) if a != b]
    behind = changed[-1][-1] + 1
    from_source = right.from_source.clone()
    from_source[:, behind:] = 0
    from_source[range(behind, target.places), range(behind, target.places)] = 1
    return WordMap(from_source, torch.zeros(target.places, dtype=torch.float64))


def _noisier_latents(self: SourceStep) -> Tensor:
    """The original blends with the inverted latent one level too noisy."""
    return self.trajectory.latents[self.index + 1]


def _cases() -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASE_NAMES]


@pytest.fixture(scope="module")
def networks() -> Any:
    return load_networks(CASES.parent / "model")


@pytest.mark.slow
@pytest.mark.parametrize("name", _cases())
def test_float64_equals_the_reference_and_the_original(
    name: str, backbone64: UNetBackbone, networks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every backend the reference's numbers; and the original's, with its bugs by one backend where it has any."""
    case = GoldenCase.read(name)
    reference = Reference(networks, case.recording.config, case.recording.biases, bugs=False)
    computed = reference.run(case.recording.tensor("z0"))
    for backend in BACKENDS:
        run = run_case(backbone64, case, backend)
        compare_with_reference(computed, run)
        with monkeypatch.context() as patched:
            if bring_back_bugs(case, patched):
                if backend != "qk":
                    continue
                run = run_case(backbone64, case, backend)
        compare_with_recording(case, run, tolerances(name), wrong_mask_pixels=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", _cases())
def test_float32_is_as_near_as_the_originals_own(
    name: str, backbone32: UNetBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = GoldenCase.read(name)
    bring_back_bugs(case, monkeypatch)
    within = Differences(**{key: 10 * value for key, value in vars(FLOAT32_OF_THE_ORIGINAL[name]).items()})
    for backend in BACKENDS:
        # A soft mask within rounding of the threshold may fall on either side.
        compare_with_recording(case, run_case(backbone32, case, backend), within, wrong_mask_pixels=2)


@pytest.mark.slow
def test_the_reference_equals_the_original(networks: Any) -> None:
    """With the original's bugs, in a case that has one: so that the two are independent witnesses."""
    recording = read_recording("l_multi_token_replace")
    computed = Reference(networks, recording.config, {}, bugs=True).run(recording.tensor("z0"))
    last = recording.edit_steps[-1]
    edited = computed.edited[last][recording.arrays["frames"]]
    _close(edited, recording.tensor("edited")[-1], tolerances(recording.name).edited)
    right = Reference(networks, recording.config, {}, bugs=False).run(recording.tensor("z0"))
    assert (right.edited[last] - computed.edited[last]).abs().max() > 0.1, "the bug matters"


@pytest.mark.slow
def test_the_table_of_sensitivities_holds_here(networks: Any) -> None:
    """Measured anew, a case changes as the table says, within what another machine's rounding may do."""
    name = "z_maps"
    for where, changes in measure(networks, read_recording(name)).items():
        for key, change in changes.items():
            assert 1 / 3 < change / sensitivities(name)[where][key] < 3, (where, key)


def test_recorded_maps_equal_the_originals(backbone64: UNetBackbone) -> None:
    """Single attention maps of the inversion, layer by layer, as the original stores them."""
    case = GoldenCase.read("z_maps")
    clean = case.recording.tensor("z0")
    steps = schedule(backbone64.scheduler_config, case.method.steps)
    everything = Needs(frozenset(site.name for site in backbone64.sites), frozenset(range(4)), frozenset(range(4)))
    attention = SourceAttention(KeepMaps(), MemoryStore(torch.device("cpu")), everything)
    with unet_denoiser(backbone64, case.method, len(clean), chunk_size=None) as denoiser:
        invert(denoiser, clean, case.request.source_prompt, steps, attention=attention)
    with np.load(CASES / "z_maps_some.npz") as theirs:
        assert len(theirs.files) == 4
        for key in theirs.files:
            step, place, layer = key.split(".")
            block, kind = place.split("_")
            names = [s.name for s in backbone64.sites if s.part == block and s.kind == kind]
            recording = attention.store.get((int(step.removeprefix("step")), 0), torch.device("cpu"))
            _close(recording[f"{names[int(layer)]}/maps"], torch.from_numpy(theirs[key]).double(), 1e-5)


def test_the_mask_of_a_frame_without_attention_is_empty() -> None:
    """And not NaN."""
    assert not WordMask(torch.zeros(1, 4, 4), threshold=0.3).hard((8, 8)).any()
