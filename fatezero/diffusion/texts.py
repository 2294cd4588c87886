"""What a network is told of a prompt.

For a UNet it is made here, by one text encoder (Stable Diffusion 1.x, 2.x) or two (SDXL).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fatezero.attention.prompts import read_prompt
from fatezero.errors import UserError
from fatezero.system.terminal import quoted

SIZES_TOLD = 6  # to SDXL's UNet, rows and columns of each: the image's size, where it was cropped, the size asked for


@dataclass(frozen=True, eq=False)
class TextConditioning:
    """A prompt as a network is told of it; each is equal to itself alone.

    Attributes:
        hidden: 1,T,D for each token, which attention reads; where there are several contexts, theirs one after
            the other.
        pooled: 1,P of the whole prompt, which is added to the timestep's embedding; None where the network takes none.
    """

    hidden: Tensor
    pooled: Tensor | None = None


class TextEncoding(Protocol):
    """Makes conditionings of prompts that fit so many contexts, each of which is read by itself."""

    @property
    def widths(self) -> tuple[int, int | None]:
        """D and P of the conditionings; P is None where nothing is pooled."""

    def check(self, text: str) -> None:
        """Refuse a prompt whose tokens have no common places in all encoders."""

    @property
    def layers(self) -> int:
        """Of the shortest encoder."""

    def embed(self, text: str, skipped: int, contexts: int) -> TextConditioning:
        """The conditioning of a prompt, by a state as many layers before the usual one."""

    def embed_nothing(self, contexts: int) -> TextConditioning:
        """The conditioning of the unconditional branch, which has no prompt."""


@dataclass(frozen=True)
class OneTextEncoder:
    """Stable Diffusion 1.x and 2.x: the encoder's last state.

    Attributes:
        tokenizer: CLIPTokenizer.
        encoder: CLIPTextModel.
    """

    tokenizer: Any
    encoder: Any

    @property
    def widths(self) -> tuple[int, int | None]:
        """D of the last hidden state."""
        return int(self.encoder.config.hidden_size), None

    def check(self, text: str) -> None:
        """One encoder agrees with itself."""

    @property
    def layers(self) -> int:
        """Of the encoder."""
        return int(self.encoder.config.num_hidden_layers)

    def embed(self, text: str, skipped: int, contexts: int) -> TextConditioning:
        """The last hidden state, 1,T,D, or an earlier one through the last norm."""
        tokens = _tokens(self.tokenizer, text, contexts)
        mask = None
        if getattr(self.encoder.config, "use_attention_mask", False):
            mask = tokens.attention_mask.to(self.encoder.device)
        ids = tokens.input_ids.to(self.encoder.device)
        output = self.encoder(ids, attention_mask=mask, output_hidden_states=skipped > 0)
        if not skipped:
            return TextConditioning(_in_a_row(output[0]))
        model = getattr(self.encoder, "text_model", self.encoder)
        return TextConditioning(_in_a_row(model.final_layer_norm(output.hidden_states[-(skipped + 1)])))

    def embed_nothing(self, contexts: int) -> TextConditioning:
        """That of the empty prompt."""
        return self.embed("", 0, contexts)


@dataclass(frozen=True)
class TwoTextEncoders:
    """SDXL (Podell et al., ICLR 2024): both encoders' penultimate states side by side, and the second's pooled text.

    Attributes:
        tokenizers: of both encoders: one vocabulary, each with its own padding.
        encoders: CLIPTextModel and CLIPTextModelWithProjection.
        zeros_for_nothing: the unconditional branch is told zeros in place of the empty prompt.
    """

    tokenizers: tuple[Any, Any]
    encoders: tuple[Any, Any]
    zeros_for_nothing: bool

    @property
    def widths(self) -> tuple[int, int | None]:
        """Of both hidden states side by side, and of the projected pooled state."""
        return sum(one.config.hidden_size for one in self.encoders), int(self.encoders[1].config.projection_dim)

    def check(self, text: str) -> None:
        """As `check_same_places`."""
        check_same_places(self.tokenizers, text)

    @property
    def layers(self) -> int:
        """Of the shorter encoder, the last one aside, whose state is not read."""
        return min(int(one.config.num_hidden_layers) for one in self.encoders) - 1

    def embed(self, text: str, skipped: int, contexts: int) -> TextConditioning:
        """The penultimate hidden states side by side, 1,T,D, and the first context's projected pooled state, 1,P."""
        outputs = [
            encoder(_tokens(tokenizer, text, contexts).input_ids.to(encoder.device), output_hidden_states=True)
            for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True)
        ]
        hidden = torch.cat([o.hidden_states[-(skipped + 2)] for o in outputs], dim=-1)
        return TextConditioning(_in_a_row(hidden), outputs[1].text_embeds[:1])

    def embed_nothing(self, contexts: int) -> TextConditioning:
        """That of the empty prompt, or zeros where the checkpoint says so."""
        empty = self.embed("", 0, contexts)
        if not self.zeros_for_nothing or empty.pooled is None:
            return empty
        return TextConditioning(torch.zeros_like(empty.hidden), torch.zeros_like(empty.pooled))


def check_same_places(tokenizers: tuple[Any, Any], text: str) -> None:
    """Refuse a prompt whose tokens have other places in one of two CLIPs' tokenizers than in the other.

    The second one, of SDXL and Stable Diffusion 3, reads its padding, which is "!", apart from what stands beside it
    ("!!" as two tokens).

    Raises:
        UserError: if that moves the places of the tokens behind it.
    """
    first, second = (len(tokenizer(text)["input_ids"]) for tokenizer in tokenizers)
    if first != second:
        raise UserError(
            f"The prompt {quoted(text)} has {first} tokens in the first text encoder and {second} in the second, which "
            f"reads {quoted(tokenizers[1].pad_token)} as padding: write it without."
        )


def text_encoding(parts: Mapping[str, Any], *, zeros_for_nothing: bool) -> TextEncoding:
    """The text side of a checkpoint, by the names that diffusers has for its parts."""
    if "text_encoder_2" not in parts:
        return OneTextEncoder(parts["tokenizer"], parts["text_encoder"])
    return TwoTextEncoders(
        (parts["tokenizer"], parts["tokenizer_2"]),
        (parts["text_encoder"], parts["text_encoder_2"]),
        zeros_for_nothing,
    )


def _tokens(tokenizer: Any, text: str, contexts: int) -> Any:
    """A prompt's tokens, a word of several vectors as many: each context's in a row, padded."""
    prompt = read_prompt(tokenizer, text, contexts)
    own = {"input_ids": [list(ids) for ids in prompt.ids_by_context]}
    return tokenizer.pad(own, padding="max_length", max_length=prompt.context, return_tensors="pt")


def _in_a_row(states: Tensor) -> Tensor:
    """States of contexts n,t,D as those of one prompt, 1,n*t,D."""
    return states.flatten(0, 1)[None]
