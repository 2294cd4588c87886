"""A single file of weights as a checkpoint's folder: configurations made from its header, and a link to the file.

So that all that reads checkpoints reads folders. Needs no torch; weights are converted when they are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from math import isclose, sqrt
from operator import mul
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fatezero.data.files import home_folder
from fatezero.diffusion.clip_vocabulary import END, tokenizer_files
from fatezero.diffusion.noise_schedule import STABLE_DIFFUSION
from fatezero.diffusion.original_layout import (
    SCALE,
    VAE,
    Family,
    OriginalFile,
    family_of,
    motion_config,
    text_configs,
    unet_config,
    vae_config,
)
from fatezero.diffusion.vetting import tensor_shapes
from fatezero.diffusion.weight_sets import ORIGINAL
from fatezero.errors import UserError
from fatezero.system.publishing import replacing
from fatezero.system.terminal import quoted, shortened

SUFFIX = ".safetensors"
PICKLES = (".ckpt", ".bin", ".pt", ".pth")
NAME = 40  # characters of the file's in the folder's, which may not grow too long
LEVELS = 1000  # of noise, in every checkpoint of Stable Diffusion
ALPHAS, SIGMAS = "alphas_cumprod", "denoiser.sigmas"  # buffers of the trainers of Stable Diffusion and of SDXL
PREDICTIONS = {"epsilon": "epsilon", "v": "v_prediction"}  # by the name that ModelSpec gives them
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}

SDXL_INDEX = {
    **{part: named for part, named in INDEX.items() if "safety_checker" not in part},
    "_class_name": "StableDiffusionXLPipeline",
    "force_zeros_for_empty_prompt": True,
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}


@dataclass(frozen=True)
class _Published:
    """What is published with the checkpoints of a family, and no header says.

    Attributes:
        index: model_index.json.
        paddings: token behind short prompts, by tokenizer.
        scale: scaling factor of the latents.
        side: of the latents that the UNet was trained on.
    """

    index: Mapping[str, Any]
    paddings: Mapping[str, str]
    scale: float
    side: int


_PUBLISHED: Mapping[Family, _Published] = {
    "Stable Diffusion 1.x": _Published(INDEX, {"tokenizer": END}, SCALE, 64),
    "Stable Diffusion 2.x": _Published(INDEX, {"tokenizer": "!"}, SCALE, 64),
    "SDXL": _Published(SDXL_INDEX, {"tokenizer": END, "tokenizer_2": "!"}, 0.13025, 128),
}


def check_format(file: Path) -> None:
    """Refuse a file that is no safetensors file.

    Raises:
        UserError: naming the way in.
    """
    if file.suffix in PICKLES:
        raise UserError(
            f"{file} is a pickle, which can run code, and is not read: make safetensors of it with `fatezero convert "
            "FILE OUT`, which reads tensors and nothing else."
        )
    if file.suffix != SUFFIX:
        raise UserError(f"{file} is no checkpoint: give a folder in diffusers' layout, or a *{SUFFIX} file.")


def checkpoint_of_file(file: Path, prediction_type: str | None = None) -> Path:
    """The folder of a whole checkpoint in one file.

    Args:
        file: of Stable Diffusion 1.x, 2.x or SDXL in its authors' layout.
        prediction_type: what its UNet predicts, where the file does not say it.

    Raises:
        UserError: if it is of another kind, or does not say what its UNet predicts.
    """
    header = read_header(file)
    family = family_of(header)
    published = _PUBLISHED[family]
    scheduler = _scheduler_config(header, family, prediction_type)
    side = 96 if family == "Stable Diffusion 2.x" and scheduler["prediction_type"] == "v_prediction" else published.side
    configs = {
        "model_index.json": published.index,
        "unet/config.json": unet_config(header, family, side),
        "vae/config.json": vae_config(header, VAE, published.scale),
        "scheduler/scheduler_config.json": scheduler,
        **{f"{part}/config.json": config for part, config in text_configs(header, family).items()},
    }
    texts = {
        f"{part}/{name}": text
        for part, padding in published.paddings.items()
        for name, text in tokenizer_files(padding).items()
    }
    return _folder(file, {name: _written(config) for name, config in configs.items()} | texts)


def vae_of_file(file: Path, scale: float) -> Path:
    """The folder of an autoencoder in one file.

    Args:
        file: AutoencoderKL in its authors' layout.
        scale: scaling factor of the latents that the checkpoint's UNet was trained on.

    Raises:
        UserError: if it is none.
    """
    header = read_header(file)
    prefix = VAE if header.under(VAE) else ""
    if not header.under(f"{prefix}encoder.down."):
        raise header.refused("no autoencoder in its authors' layout: give one, or a folder with its config.json")
    return _folder(file, {"config.json": _written(vae_config(header, prefix, scale))})


def adapter_of_file(file: Path) -> Path:
    """The folder of a motion adapter in one file of AnimateDiff's layout.

    Raises:
        UserError: if it is none.
    """
    return _folder(file, {"config.json": _written(motion_config(read_header(file)))})


def read_header(file: Path) -> OriginalFile:
    """Names, shapes and notes of a safetensors file.

    Raises:
        UserError: if it is none, or torn.
    """
    check_format(file)
    shapes = tensor_shapes([file])
    with safe_open(file, framework="numpy") as opened:
        return OriginalFile(file, shapes, opened.metadata() or {})


def _scheduler_config(header: OriginalFile, family: Family, asked: str | None) -> dict[str, Any]:
    """The family's noise schedule; rescaled to end in pure noise where the file bears the mark of it."""
    predicts = _prediction_type(header, family, asked)
    config = {"_class_name": "DDIMScheduler", **STABLE_DIFFUSION, "prediction_type": predicts}
    rescaled = "ztsnr" in header.shapes
    _check_schedule(header, rescaled=rescaled)
    return config | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if rescaled else config


def _prediction_type(header: OriginalFile, family: Family, asked: str | None) -> str:
    """What the file says, else what was asked for, else what every checkpoint of the family predicts."""
    marked = "v_prediction" if "v_pred" in header.shapes else None
    noted = header.metadata.get("modelspec.prediction_type", "")
    said = marked or PREDICTIONS.get(noted)
    if said and asked and said != asked:
        raise UserError(f"{header.path} predicts {said}, as it says itself: leave --prediction-type {asked} out.")
    if said or asked:
        return str(said or asked)
    if noted:
        raise UserError(
            f"{header.path} notes that it predicts {quoted(noted)} (modelspec.prediction_type): epsilon and v are "
            "known; where the note is wrong, give --prediction-type."
        )
    if family != "Stable Diffusion 2.x":
        return "epsilon"
    raise UserError(
        f"{header.path} does not say what its UNet predicts, and {family} has both kinds: give --prediction-type "
        "epsilon (512 x 512 models) or v_prediction (768 x 768 ones)."
    )


def _check_schedule(header: OriginalFile, *, rescaled: bool) -> None:
    """Refuse a file that brings another noise schedule than its family's.

    Where a mark says that it is rescaled, trainers have left it behind as it is before or after that.
    """
    known = [_alphas(rescaled=False), *([_alphas(rescaled=True)] if rescaled else [])]
    for name in (ALPHAS, SIGMAS):
        found = _kept_alphas(header, name) if name in header.shapes else known[0]
        if not any(_close(found, alphas) for alphas in known):
            raise header.refused(
                f"a checkpoint with a noise schedule of its own ({name}), which no configuration here describes: "
                "give its folder in diffusers' layout"
            )


def _kept_alphas(header: OriginalFile, name: str) -> list[float]:
    """Cumulative alphas that a file holds, from the cleanest level."""
    try:
        with safe_open(header.path, framework="pt") as opened:
            values = [float(value) for value in opened.get_tensor(name).flatten()]
    except (OSError, SafetensorError) as error:
        raise UserError(f"{header.path} cannot be read ({shortened(str(error), 200)}): get it again.") from error
    return sorted((1 / (1 + value**2) for value in values) if name == SIGMAS else values, reverse=True)


def _close(found: list[float], alphas: list[float]) -> bool:
    """Whether they are the same; half precision keeps three digits."""
    return len(found) == LEVELS and all(isclose(a, b, abs_tol=4e-3) for a, b in zip(found, alphas, strict=True))


def _alphas(*, rescaled: bool) -> list[float]:
    """Cumulative alphas of Stable Diffusion's schedule; rescaled to end in pure noise (Lin et al. 2024)."""
    low, high = sqrt(STABLE_DIFFUSION["beta_start"]), sqrt(STABLE_DIFFUSION["beta_end"])
    betas = [(low + (high - low) * level / (LEVELS - 1)) ** 2 for level in range(LEVELS)]
    alphas = list(accumulate((1 - beta for beta in betas), mul))
    if not rescaled:
        return alphas
    signal = [sqrt(alpha) for alpha in alphas]
    return [((value - signal[-1]) * signal[0] / (signal[0] - signal[-1])) ** 2 for value in signal]


def _written(config: Mapping[str, Any]) -> str:
    return json.dumps(config, indent=2) + "\n"


def _folder(file: Path, texts: Mapping[str, str]) -> Path:
    """A folder that holds the texts and a link to the file; the one that is there, if it was made before."""
    target = file.resolve()
    key = sha256("\0".join([str(target), *(part for item in sorted(texts.items()) for part in item)]).encode())
    folder = home_folder() / "single-files" / f"{file.stem[:NAME]}-{key.hexdigest()[:16]}"
    if not folder.is_dir():
        with replacing(folder) as made:
            for name, text in texts.items():
                path = made / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
            (made / ORIGINAL).symlink_to(target)
    return folder
