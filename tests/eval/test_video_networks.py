"""X-CLIP, VideoMAE and V-JEPA 2 against transformers' own forward passes, and folders that are not whole."""

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
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    VideoPrismClipModel,
    VideoPrismProcessor,
    VJEPA2ForVideoClassification,
    VJEPA2Model,
    XCLIPModel,
)

from fatezero.errors import UserError
from fatezero.types import Frames
from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.flow import load_flow
from fatezero_eval.networks.loading import Networks, load_networks
from fatezero_eval.networks.video_features import load_video_network
from fatezero_eval.networks.video_folders import evenly_spaced
from fatezero_eval.networks.video_text import load_video_text
from fatezero_eval.options import ScoringOptions
from fatezero_eval.scoring.checks import runnable_metrics, selected
from fatezero_eval.scoring.one_pass import ClipScore, score
from fatezero_eval.scoring.set_distances import DISTANCES_OF_SETS
from fatezero_eval.scoring.suite import choose
from fatezero_eval.scoring.windows import ClipVersions, in_memory
from tests.eval import video_network_folders as folders
from tests.eval.video_network_folders import SHOWN

PROMPT = "an owl in snow"


@pytest.fixture(scope="module")
def xclip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.xclip(tmp_path_factory.mktemp("video") / "xclip")


def scored(frames: Frames, prompt: str, networks: Networks) -> ClipScore:
    clip = ClipVersions(edited=in_memory(frames), source=None, source_prompt="", target_prompt=prompt)
    (found,) = score(clip, choose(["video_text_alignment"]), networks)
    return found


@pytest.mark.parametrize("length", [SHOWN, 37, 3, 1])
def test_video_text_alignment_is_the_logit_of_xclip(
    length: int, xclip: Path, make_frames: Callable[..., Frames], tmp_path: Path
) -> None:
    """The clip is longer than a window, as long as the network reads, or shorter; also where it is kept."""
    frames = make_frames(length, 0)
    model = XCLIPModel.from_pretrained(xclip).eval()
    places = np.minimum(np.linspace(0, length, SHOWN).astype(int), length - 1)
    pixels = AutoImageProcessor.from_pretrained(xclip)(list(frames[places]), return_tensors="pt")["pixel_values"]
    tokens = AutoTokenizer.from_pretrained(xclip)([PROMPT, "no owl"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(pixel_values=pixels, **tokens).logits_per_video[0] / model.logit_scale.exp()
    networks = replace(load_networks(ScoringOptions(video_text=xclip), ["video_text"]), cache=ArrayCache(tmp_path))
    for _ in range(2):
        found = [scored(frames, prompt, networks) for prompt in (PROMPT, "no owl")]
        np.testing.assert_allclose([each.value for each in found], 100 * logits.numpy(), atol=1e-4)
    assert found[0].model.startswith("xclip:")
    assert found[0].value != pytest.approx(found[1].value, abs=1e-2)


def test_video_text_alignment_of_videoprism(make_frames: Callable[..., Frames], tmp_path: Path) -> None:
    """Its prompts are padded to its context, as its own processor does."""
    folder = folders.videoprism(tmp_path / "prism")
    frames = make_frames(SHOWN, 0)
    prompts = ["a red owl in snow", "no owl"]
    model, processor = VideoPrismClipModel.from_pretrained(folder).eval(), VideoPrismProcessor.from_pretrained(folder)
    words = processor(text=prompts, padding="max_length", max_length=folders.CONTEXT, return_tensors="pt")
    pixels = processor.video_processor(list(frames), return_tensors="pt")["pixel_values_videos"]
    with torch.inference_mode():
        seen = model(pixel_values_videos=pixels, **words)
    networks = Networks(flow=load_flow("dis"), video_text=load_video_text(folder))
    found = [scored(frames, prompt, networks).value for prompt in prompts]
    np.testing.assert_allclose(found, 100 * (seen.video_embeds @ seen.text_embeds.T)[0].numpy(), atol=1e-4)
    assert found[0] != pytest.approx(found[1], abs=1e-2)
    assert "is longer than" in scored(frames, "owls " * folders.CONTEXT, networks).reason


def test_what_xclip_is_not_asked(xclip: Path, make_frames: Callable[..., Frames]) -> None:
    networks = Networks(flow=load_flow("dis"), video_text=load_video_text(xclip))
    frames = make_frames(3, 0)
    assert scored(frames, " ", networks).reason == "no target prompt is stated for this edit"
    longer = scored(frames, "owls " * folders.CONTEXT, networks)
    assert longer.value is None
    assert f"is longer than the {folders.CONTEXT} tokens xclip:" in longer.reason


def test_evenly_spaced_frames() -> None:
    assert evenly_spaced(8, 8) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert evenly_spaced(16, 8) == [0, 2, 4, 6, 9, 11, 13, 15]
    assert evenly_spaced(4, 8) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert evenly_spaced(1, 3) == [0, 0, 0]
    assert evenly_spaced(5, 1) == [0]


def _tokens_of_videomae(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    return VideoMAEModel.from_pretrained(folder)(pixel_values=pixels).last_hidden_state[0].mean(0)


def _tokens_of_vjepa2(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    return VJEPA2Model.from_pretrained(folder)(pixel_values_videos=pixels).last_hidden_state[0].mean(0)


def _read_by_the_classifier(model: type[Any]) -> Callable[[Path, torch.Tensor], torch.Tensor]:
    def run(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
        network = model.from_pretrained(folder).eval()
        read: list[torch.Tensor] = []
        network.classifier.register_forward_pre_hook(lambda _module, given: read.append(given[0]))
        network(pixels)
        return read[0][0]

    return run


def _video_of_xclip(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    return XCLIPModel.from_pretrained(folder).get_video_features(pixels).pooler_output[0]


def _video_of_videoprism(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    return VideoPrismClipModel.from_pretrained(folder).video_model(pixels).pooler_output[0]


@pytest.mark.parametrize(
    ("make", "processor", "reference"),
    [
        (folders.videomae, AutoVideoProcessor, _tokens_of_videomae),
        (folders.videomae_tuned, AutoVideoProcessor, _read_by_the_classifier(VideoMAEForVideoClassification)),
        (folders.vjepa2, AutoVideoProcessor, _tokens_of_vjepa2),
        (folders.vjepa2_tuned, AutoVideoProcessor, _read_by_the_classifier(VJEPA2ForVideoClassification)),
        (folders.xclip, AutoImageProcessor, _video_of_xclip),
        (folders.videoprism, AutoVideoProcessor, _video_of_videoprism),
    ],
)
def test_features_are_the_networks_own(
    make: Callable[[Path], Path],
    processor: Any,
    reference: Callable[[Path, torch.Tensor], torch.Tensor],
    make_frames: Callable[..., Frames],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = make(tmp_path / "network")
    capfd.readouterr()
    network = load_video_network(folder)
    assert capfd.readouterr() == ("", "")
    assert network.shown == SHOWN
    clips = [make_frames(SHOWN, seed) for seed in (0, 1)]
    found = [network.features(frames) for frames in clips]
    with torch.inference_mode():
        for frames, features in zip(clips, found, strict=True):
            prepared = processor.from_pretrained(folder)(list(frames), return_tensors="pt")
            (pixels,) = prepared.values()
            np.testing.assert_allclose(features, reference(folder, pixels), atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-2


def without_weights(*words: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in weights.items() if not any(word in name for word in words)}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def with_a_hole(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(
        {**weights, "visual_projection.weight": weights["visual_projection.weight"] * torch.nan},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def with_code(folder: Path) -> None:
    """Settings that ask for code of the folder's own, whose running would be seen."""
    (folder / "preparing.py").write_text("raise SystemExit('code of the folder was run')", encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(
        '{"auto_map": {"AutoImageProcessor": "preparing.Own"}, "image_processor_type": "Own"}'
    )


def without_file(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def called_clip(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "clip"}), encoding="utf-8")


BOTH = (load_video_text, load_video_network)


@pytest.mark.parametrize(
    ("spoil", "load", "sentence"),
    [
        *((without_weights("mit."), load, "lacks weights of a network of the type xclip") for load in BOTH),
        *((without_file("config.json"), load, "it has no config.json") for load in BOTH),
        *((without_file("model.safetensors"), load, "only safetensors weights are read") for load in BOTH),
        *(
            (without_file("preprocessor_config.json"), load, "no network of the type xclip with safetensors weights")
            for load in BOTH
        ),
        *((with_a_hole, load, "visual_projection.weight is infinite or NaN") for load in BOTH),
        *((with_code, load, "no network of the type xclip with safetensors weights") for load in BOTH),
        (called_clip, load_video_text, "of the type 'clip', and xclip or videoprism is needed"),
        (
            called_clip,
            load_video_network,
            "of the type 'clip', and videomae or vjepa2 or xclip or videoprism is needed",
        ),
        (without_file("tokenizer.json"), load_video_text, "has no tokenizer"),
    ],
)
def test_a_video_folder_that_is_not_whole_is_refused(
    spoil: Callable[[Path], None],
    load: Callable[[Path], object],
    sentence: str,
    xclip: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(xclip, tmp_path / "network"))
    spoil(folder)
    capfd.readouterr()
    with pytest.raises(UserError, match=sentence) as refused:
        load(folder)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_the_doctor_says_what_is_lacking(xclip: Path) -> None:
    names = ["video_text_alignment@1", *DISTANCES_OF_SETS]
    lacking = {name: why for name, works, why in runnable_metrics() if not works}
    assert ["--video-text" in lacking[name] or "--video-network" in lacking[name] for name in names] == [True] * 4
    given = ScoringOptions(video_text=xclip, video_network=xclip, metrics=("video_text_alignment",))
    assert {name for name, works, _ in runnable_metrics(given) if works} >= {*names}
    with pytest.raises(UserError, match="video_text_alignment cannot run: give --video-text"):
        selected(replace(given, video_text=None))
