"""Small random video networks in transformers' layout, and what their own classes say of a clip."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPTokenizer,
    PreTrainedModel,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessor,
    VideoPrismClipModel,
    VideoPrismConfig,
    VideoPrismProcessor,
    VideoPrismTokenizer,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
    VJEPA2Model,
    XCLIPConfig,
    XCLIPModel,
)
from transformers.models.llava_onevision.video_processing_llava_onevision import LlavaOnevisionVideoProcessor
from transformers.models.videomae.video_processing_videomae import VideoMAEVideoProcessor
from transformers.models.vjepa2.video_processing_vjepa2 import VJEPA2VideoProcessor

SHOWN, SIDE, CONTEXT = 8, 32, 20
_CROP: dict[str, Any] = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
_LAYERS = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def _save(model: type[PreTrainedModel], config: Any, processor: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    network = model(config)
    with torch.no_grad():
        for weights in network.parameters():  # as large as those of a network that has learnt something
            weights.normal_(std=0.3)
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def xclip(folder: Path) -> Path:
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    tokens = [*letters, "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=CONTEXT)
    words = {"vocab_size": len(tokens), "max_position_embeddings": CONTEXT, "eos_token_id": len(tokens) - 1}
    over_time = {f"mit_{name}": value for name, value in _LAYERS.items()} | {"mit_hidden_size": 16}
    config = XCLIPConfig(
        text_config={**_LAYERS, **words},
        vision_config={**_LAYERS, **over_time, "image_size": SIDE, "patch_size": 16, "num_frames": SHOWN},
        projection_dim=16,
        prompt_layers=1,
        prompt_num_attention_heads=2,
    )
    tokenizer.save_pretrained(folder)
    return _save(XCLIPModel, config, VideoMAEImageProcessor(**_CROP), folder)


def videoprism(folder: Path) -> Path:
    """Its video-text model; its pictures have 36 pixels a side, in patches of 18."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    tokenizer = VideoPrismTokenizer(vocab=[*special, *((letter, -3.0) for letter in string.ascii_lowercase)])
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT}
    sizes = {"num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1}
    layers = {name: value for name, value in _LAYERS.items() if name != "num_hidden_layers"}
    config = VideoPrismConfig(
        text_config={**_LAYERS, **words}, vision_config={**layers, **sizes, "image_size": 36, "num_frames": SHOWN}
    )
    pictures = LlavaOnevisionVideoProcessor(size={"height": 36, "width": 36}, do_normalize=False)
    return _save(VideoPrismClipModel, config, VideoPrismProcessor(pictures, tokenizer), folder)


def _videomae(width: int) -> VideoMAEConfig:
    decoder = {f"decoder_{name}": value for name, value in _LAYERS.items()}
    layers = {**_LAYERS, **decoder, "hidden_size": width}
    return VideoMAEConfig(image_size=SIDE, patch_size=16, num_frames=SHOWN, num_labels=5, **layers)


def videomae(folder: Path, width: int = 24) -> Path:
    """As it is published before it was tuned: with its decoder."""
    return _save(VideoMAEForPreTraining, _videomae(width), VideoMAEVideoProcessor(**_CROP), folder)


def videomae_tuned(folder: Path) -> Path:
    return _save(VideoMAEForVideoClassification, _videomae(24), VideoMAEVideoProcessor(**_CROP), folder)


def _vjepa2() -> VJEPA2Config:
    predictor = {f"pred_{name}": value for name, value in _LAYERS.items() if name != "intermediate_size"}
    sizes = {"patch_size": 16, "crop_size": SIDE, "frames_per_clip": SHOWN, "mlp_ratio": 2, "num_pooler_layers": 1}
    return VJEPA2Config(**{**_LAYERS, **predictor, **sizes, "num_labels": 5})


def vjepa2(folder: Path) -> Path:
    return _save(VJEPA2Model, _vjepa2(), VJEPA2VideoProcessor(**_CROP), folder)


def vjepa2_tuned(folder: Path) -> Path:
    return _save(VJEPA2ForVideoClassification, _vjepa2(), VJEPA2VideoProcessor(**_CROP), folder)
