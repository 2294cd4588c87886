"""The smallest real judge, and small clips on disk."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from fatezero.clips.video import write_frames
from fatezero.data.manifest import request_to_json
from fatezero.types import ClipSpec, EditRequest, Frames
from fatezero_eval.networks.clip import ImageTextEncoder, load_clip
from tests.eval.run_records import record_of

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 24
WORDS = ("an", "red", "owl", "fox", "jeep", "in", "the", "snow")


def spelling(word: str) -> list[tuple[str, str]]:
    """Merges that make the word one token, from its first letter on."""
    letters = [*word[:-1], f"{word[-1]}</w>"]
    return [("".join(letters[:count]), letters[count]) for count in range(1, len(letters))]


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random open_clip model as a local folder; its tokenizer knows WORDS and spells all others."""
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    merges = [pair for word in WORDS for pair in spelling(word)]
    tokens = [*letters, *("".join(pair) for pair in merges), START, END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)
    tokenizer.save_pretrained(folder)
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": CONTEXT, "vocab_size": len(tokens), "width": 32, "heads": 2, "layers": 2}
    model_cfg = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {**text, "hf_tokenizer_name": "here"}}
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    weights = open_clip.CLIP(16, vision, text).state_dict()
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def judge(tiny_clip: Path) -> ImageTextEncoder:
    return load_clip(str(tiny_clip))


def drifting(frames: int, seed: int, height: int = 32, width: int = 40) -> Frames:
    """Smooth texture that moves by a pixel a frame, uint8 F,H,W,3."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 12, 12)))
    fine = torch.nn.functional.interpolate(coarse, size=(height, width + frames), mode="bicubic")[0]
    canvas = (fine.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return np.stack([canvas[:, t : t + width] for t in range(frames)])


@pytest.fixture
def make_frames() -> Callable[..., Frames]:
    return drifting


def grey(mask: npt.NDArray[np.bool_]) -> Frames:
    return np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=-1)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Two variants of three edits of unequal length, with a manifest that knows their masks and truths."""
    clips, edits = tmp_path / "clips", []
    for number, (name, frames) in enumerate((("owl", 3), ("fox", 5), ("jeep", 1))):
        source = drifting(frames, number)
        mask = np.zeros(source.shape[:3], dtype=bool)
        mask[:, 8:24, 10 : 20 + 4 * number] = True
        truth = np.where(mask[..., None], 255 - source, source)
        write_frames(clips / name, source)
        write_frames(clips / f"{name}-true", truth)
        write_frames(clips / f"{name}-mask", grey(mask))
        request = EditRequest(
            id=f"{name}-1",
            clip=ClipSpec(path=str(clips / name)),
            source_prompt=f"an {name}",
            target_prompt=f"a red {name}",
            edited_words=(name,),
            category="attribute",
            seed=number,
        )
        known = {"clip": f"clips/{name}-true", "mask": f"clips/{name}-mask"}
        edits.append((request, known))
        for variant, noise in (("full", 4), ("no fusion", 12)):
            folder = tmp_path / "runs" / "demo" / variant / request.id
            shake = np.random.default_rng(noise).integers(-noise, noise + 1, truth.shape)
            write_frames(folder / "frames", np.clip(truth + shake, 0, 255).astype(np.uint8))
            if variant == "full":
                write_frames(folder / "masks", grey(np.roll(mask, 2, axis=2)))
            (folder / "meta.json").write_text(json.dumps(record_of(request)), encoding="utf-8")
    lines = []
    for request, known in edits:
        relative = replace(request, clip=replace(request.clip, path=f"clips/{request.clip.path.split('/')[-1]}"))
        values = request_to_json(relative)
        values["clip"] = {"path": relative.clip.path}
        lines.append(json.dumps({**values, "truth": known}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "runs" / "demo"
