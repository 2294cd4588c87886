"""Words, tokens, and which source token stands behind which target token (Prompt-to-Prompt, section 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fatezero.attention.fusion import CrossMix
from fatezero.config import FusionConfig, Window
from fatezero.errors import UserError


@dataclass(frozen=True)
class WordMap:
    """Where the cross-attention of each target token comes from before windows and reweighting.

    Attributes:
        from_source: S,T coefficients of the source's maps.
        own: T coefficients of the target's own maps.
    """

    from_source: Tensor
    own: Tensor


@dataclass(frozen=True)
class Prompt:
    """A prompt as the text encoder reads it.

    Attributes:
        text: the prompt.
        ids: token ids with begin and end, without padding.
        words: the words between white space, as (word, positions of its tokens).
    """

    text: str
    ids: tuple[int, ...]
    words: tuple[tuple[str, tuple[int, ...]], ...]

    def tokens_of(self, word: str | int) -> tuple[int, ...]:
        """Positions of the tokens of a word.

        Args:
            word: a word as it stands in the prompt, case and punctuation included, all its occurrences; several
                words that follow each other; or the index of a word.

        Raises:
            UserError: if the prompt has no such word.
        """
        if isinstance(word, int):
            if not 0 <= word < len(self.words):
                raise UserError(f"The prompt {self.text!r} has {len(self.words)} words, so none has index {word}.")
            return self.words[word][1]
        wanted = word.split()
        spoken = [w for w, _ in self.words]
        starts = [i for i in range(len(spoken)) if wanted and spoken[i : i + len(wanted)] == wanted]
        if not starts:
            raise UserError(f"{word!r} is not a word of the prompt {self.text!r}; its words are: {', '.join(spoken)}.")
        return tuple(token for i in starts for _, tokens in self.words[i : i + len(wanted)] for token in tokens)


def read_prompt(tokenizer: Any, text: str) -> Prompt:
    """Tokenise a prompt and find its words' tokens by their character offsets.

    Raises:
        UserError: if the prompt is longer than the text encoder's context.
    """
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    if len(ids) > tokenizer.model_max_length:
        raise UserError(
            f"The prompt {text!r} has {len(ids)} tokens with begin and end, the text encoder reads "
            f"{tokenizer.model_max_length}: shorten it."
        )
    words = tuple(
        (
            match.group(),
            tuple(i for i, (a, b) in enumerate(offsets) if a < b and a < match.end() and b > match.start()),
        )
        for match in re.finditer(r"\S+", text)
    )
    return Prompt(text, tuple(ids), words)


def replacement_map(source: Prompt, target: Prompt, context: int) -> WordMap:
    """Swap word for word.

    Equal words hand on their tokens' maps one to one. A changed word hands them on one to one where the token
    counts agree; otherwise each of its n target tokens gets the sum of the source tokens' maps over n. What
    follows the last word (end and padding) is matched in order; columns left without a counterpart stay the
    target's own.

    Raises:
        UserError: if the prompts have different numbers of words.
    """
    if len(source.words) != len(target.words):
        raise UserError(
            f"word_map 'replace' needs equal word counts: {source.text!r} has {len(source.words)}, {target.text!r} has "
            f"{len(target.words)}. Use word_map 'refine'."
        )
    from_source = torch.zeros(context, context, dtype=torch.float64)
    from_source[0, 0] = 1
    i = j = 1
    for (_, source_tokens), (_, target_tokens) in zip(source.words, target.words, strict=True):
        if len(source_tokens) == len(target_tokens):
            from_source[list(source_tokens), list(target_tokens)] = 1
        else:
            from_source[source_tokens[0] : source_tokens[-1] + 1, list(target_tokens)] = 1 / len(target_tokens)
        i, j = source_tokens[-1] + 1, target_tokens[-1] + 1
    rest = context - max(i, j)
    from_source[range(i, i + rest), range(j, j + rest)] = 1
    return WordMap(from_source, (from_source.sum(0) == 0).double())


def refinement_map(source: Prompt, target: Prompt, context: int) -> WordMap:
    """Align the prompts' tokens (Needleman-Wunsch); new tokens keep the target's own attention.

    End maps to end, and the padding behind the target's end comes from the same columns of the source.
    """
    mapper = _align_tokens(source.ids, target.ids) + list(range(len(target.ids), context))
    from_source = torch.zeros(context, context, dtype=torch.float64)
    for column, row in enumerate(mapper):
        if row >= 0:
            from_source[row, column] = 1
    return WordMap(from_source, torch.tensor([float(row < 0) for row in mapper], dtype=torch.float64))


def _align_tokens(source: Sequence[int], target: Sequence[int]) -> list[int]:
    """Source index of every target token, -1 for new ones: gap 0, match 1, mismatch -1.

    Among equal scores a gap in the source goes first, then one in the target, then the diagonal, as the original does.
    """
    rows, columns = len(source) + 1, len(target) + 1
    score = [[0] * columns for _ in range(rows)]
    came = [["left"] * columns for _ in range(rows)]
    for i in range(1, rows):
        came[i][0] = "up"
        for j in range(1, columns):
            left, up = score[i][j - 1], score[i - 1][j]
            diagonal = score[i - 1][j - 1] + (1 if source[i - 1] == target[j - 1] else -1)
            score[i][j] = max(left, up, diagonal)
            came[i][j] = "left" if score[i][j] == left else "up" if score[i][j] == up else "diagonal"
    aligned = [-1] * len(target)
    i, j = rows - 1, columns - 1
    while i > 0 and j > 0:
        if came[i][j] == "diagonal":
            i, j = i - 1, j - 1
            aligned[j] = i
        elif came[i][j] == "left":
            j -= 1
        else:
            i -= 1
    return aligned


def active_steps(window: Window | None, count: int) -> range:
    """Steps of 0..count-1 inside a window of fractions: floor(start * count) <= step < floor(end * count)."""
    return range(int(window[0] * count), int(window[1] * count)) if window is not None else range(0)


def _cross_steps(window: Window | None, steps: int) -> range:
    """Steps inside a cross-attention window, counted in steps + 1 parts as Prompt-to-Prompt does."""
    return active_steps(window, steps + 1)


def cross_mixes(
    fusion: FusionConfig, source: Prompt, target: Prompt, context: int, steps: int
) -> tuple[CrossMix | None, ...]:
    """The coefficients of every edit step; None where cross-attention is not fused.

    With alpha (1 inside a word's window, else 0) and the reweighting r:
    fused = alpha * r * (from_source + own) + (1 - alpha) * edited.

    Raises:
        UserError: for words that are not in the target prompt, or unequal word counts with "replace".
    """
    align = replacement_map if fusion.word_map == "replace" else refinement_map
    word_map = align(source, target, context)
    reweight = torch.ones(context, dtype=torch.float64)
    for word, factor in fusion.reweight.items():
        reweight[list(target.tokens_of(word))] = factor
    alpha = _word_alpha(fusion.cross_window, fusion.word_windows, target, context, steps)
    for word in fusion.reweight:
        if not alpha[:, list(target.tokens_of(word))].any():
            raise UserError(
                f"fusion.reweight has no effect on {word!r}, whose cross-attention is fused at no step: open "
                "fusion.cross_window, or a window of its own in fusion.word_windows."
            )
    return tuple(_mix(word_map, reweight, row) for row in alpha)


def _word_alpha(
    window: Window | None, word_windows: Mapping[str, Window], target: Prompt, context: int, steps: int
) -> Tensor:
    """Float64 steps,T: 1 where the token's window is open."""
    columns: dict[str | None, tuple[Sequence[int], Window | None]] = {None: (range(context), window)}
    columns |= {word: (target.tokens_of(word), own) for word, own in word_windows.items()}
    alpha = torch.zeros(steps + 1, context, dtype=torch.float64)
    for tokens, opened in columns.values():
        alpha[:, list(tokens)] = 0
        for step in _cross_steps(opened, steps):
            alpha[step, list(tokens)] = 1
    return alpha[:steps]


def _mix(word_map: WordMap, reweight: Tensor, alpha: Tensor) -> CrossMix | None:
    from_source = word_map.from_source * (reweight * alpha)
    own = word_map.own * reweight * alpha + (1 - alpha)
    if not alpha.any():
        return None
    return CrossMix(from_source if from_source.any() else None, own if own.any() else None)
