"""Textual inversion: words that text encoders learn from files, of one vector or many (Gal et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from safetensors import safe_open

from fatezero.diffusion.additions import EmbeddingFile
from fatezero.diffusion.components import check_finite
from fatezero.errors import UserError
from fatezero.system.terminal import quoted


@torch.no_grad()
def add_embeddings(pipe: Any, embeddings: Iterable[EmbeddingFile]) -> None:
    """Teach the tokenizers and text encoders of a pipeline words.

    Args:
        pipe: a pipeline of diffusers, of one text encoder or two.
        embeddings: vetted.

    Raises:
        UserError: for vectors of other text encoders or not finite, and words that a tokenizer has already.
    """
    ends = [end for end in ("", "_2") if getattr(pipe, f"text_encoder{end}", None) is not None]
    tokenizers, encoders = ([getattr(pipe, f"{part}{end}") for end in ends] for part in ("tokenizer", "text_encoder"))
    widths = [encoder.get_input_embeddings().embedding_dim for encoder in encoders]
    for embedding in embeddings:
        words = add_words(embedding, tokenizers, widths)
        for key, tokenizer, encoder in zip(embedding.keys, tokenizers, encoders, strict=True):
            with safe_open(embedding.weights, framework="pt") as opened:
                vectors = torch.atleast_2d(opened.get_tensor(key))
            check_finite([(key, vectors)], str(embedding.weights))
            tokens = tokenizer.convert_tokens_to_ids(words)
            known = encoder.get_input_embeddings().num_embeddings
            encoder.resize_token_embeddings(max(max(tokens) + 1, known), mean_resizing=False)
            table = encoder.get_input_embeddings().weight
            table[tokens] = vectors.to(table)


def add_words(embedding: EmbeddingFile, tokenizers: Iterable[Any], widths: Sequence[int]) -> list[str]:
    """Teach tokenizers a word, which needs no weights.

    Args:
        embedding: vetted.
        tokenizers: CLIPTokenizer, of each text encoder.
        widths: of the text encoders.

    Returns:
        The name of each vector: the word, then `word_1`, `word_2` and so on.

    Raises:
        UserError: if it was made for other text encoders, or a tokenizer has the word already.
    """
    further = (f"{embedding.token}_{i}" for i in range(1, embedding.vectors_for(widths) + 1))
    *words, beyond = embedding.token, *further  # which would be read as one vector more
    for tokenizer in tokenizers:
        taken = next((word for word in (*words, beyond) if word in tokenizer.get_vocab()), None)
        if taken is not None:
            raise UserError(
                f"{embedding.weights}: the checkpoint's tokenizer has the word {quoted(taken)} already: name another "
                "as --embedding FILE=<word>."
            )
        tokenizer.add_tokens(words)
    return words
