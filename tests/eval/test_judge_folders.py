"""Folders of judges that are not whole are refused in a sentence, and nothing else is printed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from fatezero.errors import UserError
from fatezero_eval.networks.clip import load_clip, load_transformers_clip
from fatezero_eval.networks.flow import Dis
from fatezero_eval.networks.loading import Networks
from fatezero_eval.scoring.one_pass import NO_NUMBER, score
from fatezero_eval.scoring.suite import choose
from fatezero_eval.scoring.windows import ClipVersions, in_memory

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path) -> Path:
    """A random CLIP in transformers' layout."""
    folder = tmp_path_factory.mktemp("judges") / "whole"
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = CLIPTokenizer.from_pretrained(tiny_clip)
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": 24, "eos_token_id": len(tokenizer) - 1}
    config = CLIPConfig(
        text_config={**tower, **words},
        vision_config={**tower, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def reweighted(change: Callable[[Weights], Weights], name: str = "model.safetensors") -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        save_file(change(load_file(folder / name)), folder / name, metadata={"format": "pt"})

    return spoil


def cut(folder: Path, name: str = "model.safetensors") -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def only_pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def called(kind: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "model_type": kind}), encoding="utf-8")

    return spoil


def without(*names: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (reweighted(lambda w: {k: v for k, v in w.items() if "text" not in k}), "lacks weights of a CLIP"),
        (reweighted(lambda w: {k: v for k, v in w.items() if "vision" not in k}), "lacks weights of a CLIP"),
        (reweighted(lambda w: {k: v for k, v in w.items() if k != "logit_scale"}), r"1, among them 'logit_scale'"),
        (
            reweighted(lambda w: {**w, "text_projection.weight": torch.zeros(16, 8)}),
            r"other shapes \(1, among them 'text_projection.weight'\)",
        ),
        (reweighted(lambda w: {**w, "logit_scale": w["logit_scale"] * torch.nan}), "logit_scale is infinite or NaN"),
        (cut, "no CLIP with safetensors weights"),
        (only_pickled, "only safetensors weights are read"),
        (called("siglip"), "of the type 'siglip'"),
        (called("chinese_clip"), "of the type 'chinese_clip'"),
        (called("clip_text_model"), "of the type 'clip_text_model'"),
        (without("tokenizer.json", "tokenizer_config.json"), "has no tokenizer"),
        (without("processor_config.json"), "image processor"),
    ],
)
@pytest.mark.parametrize("load", [lambda folder: load_clip(str(folder)), load_transformers_clip])
def test_a_transformers_folder_that_is_not_whole_is_refused(
    load: Callable[[Path], object],
    spoil: Callable[[Path], None],
    sentence: str,
    whole: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "judge"))
    spoil(folder)
    with pytest.raises(UserError, match=sentence) as refused:
        load(folder)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "change",
    [
        lambda w: {k: v for k, v in w.items() if k.startswith("visual")},
        lambda w: {k: v for k, v in w.items() if k != "logit_scale"},
        lambda w: {**w, "text_projection": torch.zeros(32, 8)},
        lambda w: {**w, "more": torch.zeros(1)},
        lambda w: {**w, "logit_scale": w["logit_scale"] * torch.nan},
    ],
)
def test_an_open_clip_folder_that_is_not_whole_is_refused(
    change: Callable[[Weights], Weights], tiny_clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(tiny_clip, tmp_path / "judge"))
    reweighted(change, "open_clip_model.safetensors")(folder)
    with pytest.raises(UserError, match="cannot be loaded") as refused:
        load_clip(str(folder))
    assert "\n" not in str(refused.value)
    cut(folder, "open_clip_model.safetensors")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_clip(str(folder))
    assert capfd.readouterr() == ("", "")


def test_scores_that_are_no_numbers_are_told_by_what_they_cost(tiny_clip: Path) -> None:
    judge = load_clip(str(tiny_clip))
    judge._model.ln_final.bias.fill_(torch.nan)  # such weights are refused in a file; half precision makes them too
    frames = in_memory(np.zeros((2, 16, 16, 3), np.uint8))
    clip = ClipVersions(edited=frames, source=frames, source_prompt="an owl", target_prompt="a red owl")
    networks = Networks(flow=Dis(), clip=judge)
    text, flicker = score(clip, choose(("text_alignment", "temporal_flickering")), networks)
    assert (text.value, text.reason) == (None, NO_NUMBER)
    assert flicker.value == 1


def test_weights_in_several_files_are_one_judge(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "judge"))
    (folder / "model.safetensors").unlink()
    CLIPModel.from_pretrained(whole).save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    one, many = load_clip(str(whole)), load_clip(str(folder))
    np.testing.assert_allclose(one.texts(["a red owl"]), many.texts(["a red owl"]), atol=1e-6)
    assert one.id.split(":")[0] != many.id.split(":")[0] == "judge"
    sorted(folder.glob("model-*"))[1].unlink()
    with pytest.raises(UserError, match="no CLIP with safetensors weights"):
        load_clip(str(folder))


def test_a_judge_that_cannot_be_fetched_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"the CLIP 'ViT-B-32/laion2b_e16' cannot be loaded") as refused:
        load_clip("ViT-B-32/laion2b_e16")
    assert "\n" not in str(refused.value)
    assert (capfd.readouterr(), caplog.records) == (("", ""), [])


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder of one of transformers. models, since it has no config.json"):
        load_transformers_clip(tmp_path)
