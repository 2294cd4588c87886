"""Which layer of which network a LoRA's tensor changes, by the names that diffusers, kohya, PEFT and others give it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fatezero.diffusion.additions import LORA_PART, NETWORKS, PEFT_FRONT

FRONTS = {
    **{f"{network}.": network for network in NETWORKS},  # diffusers
    **{"lora_te_": "text_encoder", "lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2"},
    **dict.fromkeys(("lora_unet_", "diffusion_model.", ""), "denoiser"),  # kohya; ComfyUI; diffusers' first files
}
OF_OLDER_NAMES = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}  # in text encoders
OF_ANIMATEDIFF = {"_temporal_transformer_": "_", "_attention_blocks_0_": "_attn1_", "_attention_blocks_1_": "_attn2_"}
# The original UNet's names, which kohya keeps for SDXL.
OF_ENDS = {
    **{"time_embed_0": "time_embedding_linear_1", "time_embed_2": "time_embedding_linear_2"},
    **{"label_emb_0_0": "add_embedding_linear_1", "label_emb_0_2": "add_embedding_linear_2"},
    **{"input_blocks_0_0": "conv_in", "out_2": "conv_out"},
}
OF_RESNETS = {
    **{"in_layers_2": "conv1", "out_layers_3": "conv2", "emb_layers_1": "time_emb_proj"},
    "skip_connection": "conv_shortcut",
}
OF_MIDDLE = {"0": "resnets_0", "1": "attentions_0", "2": "resnets_1"}
ORIGINAL_BLOCK = re.compile(r"(?P<side>input|output)_blocks_(?P<block>\d{1,2})_(?P<part>\d)_(?P<rest>.+)")
ORIGINAL_MIDDLE = re.compile(r"middle_block_(?P<part>[012])_(?P<rest>.+)")

# The names of Wan's authors, which ComfyUI and kohya's successors keep.
OF_WAN = {
    **{"_self_attn_": "_attn1_to_", "_cross_attn_": "_attn2_to_", "_to_o": "_to_out_0"},
    **{"_ffn_0": "_ffn_net_0_proj", "_ffn_2": "_ffn_net_2"},
}
OF_WAN_ENDS = {
    **{f"time_embedding_{i}": f"condition_embedder_time_embedder_linear_{i // 2 + 1}" for i in (0, 2)},
    **{f"text_embedding_{i}": f"condition_embedder_text_embedder_linear_{i // 2 + 1}" for i in (0, 2)},
    **{"time_projection_1": "condition_embedder_time_proj", "head_head": "proj_out"},
}

DENOISERS = ("unet", "transformer", "transformer_2")

Weights = Mapping[str, tuple[str, Tensor]]  # own name and weight, by flat name


@dataclass(frozen=True)
class LoraLayers:
    """The layers of networks that a LoRA can change.

    Attributes:
        networks: own names and weights of each network's layers, by their names with "_" for ".".
        level: blocks of one level of the original UNet, which numbers them through; None where levels differ.
        denoiser: the network that is meant where a file does not name it; None where that may be either of two.
    """

    networks: Mapping[str, Weights]
    level: int | None
    denoiser: str | None

    @classmethod
    def of(cls, networks: Mapping[str, Any]) -> LoraLayers:
        """Those of networks by part, a denoising network among them; of networks on the "meta" device, too."""
        depth = networks["unet"].config.layers_per_block if "unet" in networks else None
        level = depth + 1 if isinstance(depth, int) else None
        denoisers = [name for name in DENOISERS if name in networks]
        own = {name: dict(_flat_layers(network)) for name, network in networks.items()}
        return cls(own, level, denoisers[0] if len(denoisers) == 1 else None)

    def place(self, layer: str, of_peft: str) -> tuple[str, str] | None:
        """Network and flat name of a layer by the name that a file gives it; None where there is none.

        Args:
            layer: its name.
            of_peft: the network that a file of PEFT's changes.
        """
        if layer.startswith(PEFT_FRONT):
            network, flat = of_peft, _flat(layer.removeprefix(PEFT_FRONT))
        else:
            front = next(front for front in FRONTS if layer.startswith(front))
            named, flat = FRONTS[front], _flat(layer.removeprefix(front))
            network = (self.denoiser or "") if named == "denoiser" else named
        own = self.networks.get(network, {})
        return next(((network, name) for name in self._names(flat, network) if name in own), None)

    def of_peft(self, tensors: Mapping[str, Tensor]) -> str:
        """The network that a file of PEFT's, which does not name it, changes: the one that most tensors fit."""
        return max(self.networks, key=lambda network: sum(self._fits(network, *each) for each in tensors.items()))

    def _fits(self, network: str, name: str, value: Tensor) -> bool:
        part = LORA_PART.fullmatch(name)
        place = self.place(part["layer"], network) if part else None
        if part is None or place is None or value.ndim < 2:
            return False
        at, flat = place
        side = 0 if part["half"] in {"B", "up"} else 1
        return value.shape[side] == self.networks[at][flat][1].shape[side]

    def _names(self, flat: str, network: str) -> Iterator[str]:
        """A layer's own flat name, and those that it has where a file's names are older, or others' than diffusers'."""
        yield flat
        older = next((name for name in OF_OLDER_NAMES if flat.endswith(f"_{name}")), None)
        if network in {"transformer", "transformer_2"}:
            yield _of_wan(flat)
            return
        if network != "unet":
            if older:
                yield flat.removesuffix(older) + OF_OLDER_NAMES[older]
            return
        for theirs, own in OF_ANIMATEDIFF.items():
            flat = flat.replace(theirs, own)
        yield from (flat, f"{flat}_0")  # to_out, a list of two
        if self.level is not None:
            yield _of_original(flat, self.level)


def _flat_layers(network: nn.Module) -> Iterator[tuple[str, tuple[str, Tensor]]]:
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            own = name.removeprefix("text_model.")
            yield own.replace(".", "_"), (own, layer.weight)


def _flat(layer: str) -> str:
    return layer.replace(".processor.", ".").replace(".", "_").removeprefix("text_model_")


def _of_wan(flat: str) -> str:
    """The flat name that diffusers gives a layer of Wan's, by its authors'."""
    for theirs, own in OF_WAN.items():
        flat = flat.replace(theirs, own) if theirs.endswith("_") else re.sub(f"{theirs}$", own, flat)
    return OF_WAN_ENDS.get(flat, flat)


def _of_original(flat: str, level: int) -> str:
    """The flat name that diffusers gives a layer, by the original UNet's."""
    if flat in OF_ENDS:
        return OF_ENDS[flat]
    if middle := ORIGINAL_MIDDLE.fullmatch(flat):
        return f"mid_block_{OF_MIDDLE[middle['part']]}_{OF_RESNETS.get(middle['rest'], middle['rest'])}"
    match = ORIGINAL_BLOCK.fullmatch(flat)
    if match is None:
        return flat
    inward = match["side"] == "input"
    step, layer = divmod(int(match["block"]) - inward, level)  # the first block of the way down is conv_in
    block = f"{'down' if inward else 'up'}_blocks_{step}"
    if match["rest"] == ("op" if inward else "conv"):
        return f"{block}_{'downsamplers_0_conv' if inward else 'upsamplers_0_conv'}"
    kind = "resnets" if match["part"] == "0" else "attentions"
    return f"{block}_{kind}_{layer}_{OF_RESNETS.get(match['rest'], match['rest'])}"
