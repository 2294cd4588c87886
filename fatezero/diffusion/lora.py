"""LoRA: low-rank changes of a checkpoint's weights, added to them once, so that nothing else knows of them.

The arithmetic is here, not diffusers' and PEFT's: from a file of kohya's, diffusers keeps one alpha for all attention
layers, although each may have its own, and it cannot read text encoders of which only some layers are changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fatezero.diffusion.additions import LORA_PART, NETWORKS, LoraFile
from fatezero.diffusion.components import check_finite
from fatezero.diffusion.lora_names import LoraLayers
from fatezero.diffusion.vetting import tensor_shapes
from fatezero.errors import UserError
from fatezero.system.terminal import quoted

ROLES = {"A": "down", "down": "down", "B": "up", "up": "up", None: "alpha"}
Changes = dict[tuple[str, str], dict[str, Tensor]]  # "down", "up" and perhaps "alpha", by network and flat name


@dataclass(frozen=True)
class LayerChange:
    """A layer that a LoRA changes.

    Attributes:
        network: its part.
        name: its own name in it.
        weight: outputs,inputs or outputs,inputs,rows,columns of the layer.
        down: rank,inputs (and rows and columns, flat).
        up: outputs,rank.
        alpha: one number; None where settings say it.
    """

    network: str
    name: str
    weight: Tensor
    down: Tensor
    up: Tensor
    alpha: Tensor | None


@torch.no_grad()
def add_loras(pipe: Any, loras: Iterable[LoraFile]) -> None:
    """Add LoRAs to the weights of a pipeline's denoising networks and text encoders.

    Args:
        pipe: a pipeline of diffusers.
        loras: vetted.

    Raises:
        UserError: if one does not fit the networks in all its layers, or holds NaN or infinity.
    """
    layers = LoraLayers.of({name: getattr(pipe, name) for name in NETWORKS if getattr(pipe, name, None) is not None})
    for lora in loras:
        tensors = load_file(lora.weights)
        check_finite(((name, value.float()) for name, value in tensors.items()), str(lora.weights))
        settings = {network: lora.settings(network) for network in layers.networks}
        for layer in _changed_layers(layers, tensors, lora):
            rank, weight = len(layer.down), layer.weight
            own = settings[layer.network].factor(layer.name, rank) if layer.alpha is None else layer.alpha.item() / rank
            precise = torch.promote_types(weight.dtype, torch.float32)
            product = (layer.up.to(precise) @ layer.down.to(precise)).view_as(weight)
            weight.copy_(weight.to(precise) + lora.scale * own * product)
            where = f"{lora.weights}, added with scale {lora.scale:g}"
            check_finite([(f"{layer.network}.{layer.name}", weight)], where)


def check_lora(networks: Mapping[str, nn.Module], lora: LoraFile) -> None:
    """Refuse a LoRA that does not fit networks in all its layers, by its header alone.

    Args:
        networks: by part; on the "meta" device, too.
        lora: vetted.

    Raises:
        UserError: naming the first layer that does not fit.
    """
    shapes = tensor_shapes([lora.weights])
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    for _ in _changed_layers(LoraLayers.of(networks), tensors, lora):
        pass


def _changed_layers(layers: LoraLayers, tensors: Mapping[str, Tensor], lora: LoraFile) -> Iterator[LayerChange]:
    for (network, flat), change in _read_changes(tensors, layers, lora).items():
        name, weight = layers.networks[network][flat]
        down, up = _halves(change, weight, f"{lora.weights}: {network}.{name}")
        yield LayerChange(network, name, weight, down, up, change.get("alpha"))


def _halves(change: Mapping[str, Tensor], weight: Tensor, where: str) -> tuple[Tensor, Tensor]:
    """The halves rank,inputs and outputs,rank of a layer's change.

    Raises:
        UserError: if one is missing, or they are of another shape than the layer.
    """
    if "down" not in change or "up" not in change:
        raise UserError(f"{where} has {' and '.join(sorted(change))} alone, without the rest: get the file again.")
    down, up = change["down"].flatten(1), change["up"].flatten(1)
    if up.shape != (len(weight), len(down)) or down.shape[1] != weight[0].numel():
        raise UserError(
            f"{where} is changed by {tuple(up.shape)} x {tuple(down.shape)}, its weight is {tuple(weight.shape)}: use "
            "a LoRA of the checkpoint's kind."
        )
    return down, up


def _read_changes(tensors: Mapping[str, Tensor], layers: LoraLayers, lora: LoraFile) -> Changes:
    """The layers that a file changes.

    Raises:
        UserError: naming a tensor for which the networks have no layer.
    """
    changes: Changes = {}
    strange = []
    of_peft = layers.of_peft(tensors)
    for name, value in tensors.items():
        part = LORA_PART.fullmatch(name)
        place, role = (layers.place(part["layer"], of_peft), ROLES[part["half"]]) if part else (None, "")
        sound = value.numel() == 1 if role == "alpha" else value.ndim >= 2 and value.numel() > 0
        if place is None or not sound or role in changes.get(place, {}):
            strange.append(name)
        else:
            changes.setdefault(place, {})[role] = value
    if strange:
        kind = "of another kind of model" if len(strange) == len(tensors) else "of another model"
        remedy = "use one of the checkpoint's kind"
        if "motion_modules" in min(strange):
            kind, remedy = "of motion modules", "give the --motion-adapter that it was made for"
        raise UserError(
            f"{lora.weights} holds {quoted(min(strange))}, for which this checkpoint has no layer: it is a LoRA "
            f"{kind}; {remedy}."
        )
    return changes
