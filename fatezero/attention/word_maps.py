"""Which source token stands behind which target token, and when (Prompt-to-Prompt, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fatezero.attention.active_steps import cross_steps
from fatezero.attention.fusion import CrossMix
from fatezero.attention.prompts import Prompt
from fatezero.config import FusionConfig, StepWindow
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


def replacement_map(source: Prompt, target: Prompt) -> WordMap:
    """Swap word for word.

    Equal words hand on their tokens' maps one to one. A changed word hands them on one to one where the token
    counts agree; otherwise each of its n target tokens gets the sum of the source tokens' maps over n. Begin, and
    what follows the last word (end and padding), are matched in order within each context; columns left without a
    counterpart stay the target's own.

    Raises:
        UserError: if the prompts have different numbers of words.
    """
    if len(source.words) != len(target.words):
        raise UserError(
            f"word_map 'replace' needs equal word counts: {source.text!r} has {len(source.words)}, {target.text!r} has "
            f"{len(target.words)}. Use word_map 'refine'."
        )
    from_source = torch.zeros(source.places, target.places, dtype=torch.float64)
    for (_, source_tokens), (_, target_tokens) in zip(source.words, target.words, strict=True):
        if len(source_tokens) == len(target_tokens):
            from_source[list(source_tokens), list(target_tokens)] = 1
        else:
            for source_token in source_tokens:
                from_source[source_token, list(target_tokens)] = 1 / len(target_tokens)
    from_source[source.beginnings, target.beginnings] = 1
    for n, (i, j) in enumerate(zip(source.ends, target.ends, strict=True), 1):
        rest = min(n * source.context - i, n * target.context - j)
        from_source[range(i, i + rest), range(j, j + rest)] = 1
    return WordMap(from_source, (from_source.sum(0) == 0).double())


def refinement_map(source: Prompt, target: Prompt) -> WordMap:
    """Align the prompts' tokens (Needleman-Wunsch) over all contexts; new tokens keep the target's own attention.

    In each context begin and end map to begin and end, and the padding behind the target's end comes from the same
    columns of the source.
    """
    mapper = list(range(target.places))
    for i, j in zip(source.ends, target.ends, strict=True):
        mapper[j] = i
    rows, columns = source.own_places, target.own_places
    aligned = _align_tokens([source.ids[row] for row in rows], [target.ids[column] for column in columns])
    for column, index in zip(columns, aligned, strict=True):
        mapper[column] = rows[index] if index >= 0 else -1
    from_source = torch.zeros(source.places, target.places, dtype=torch.float64)
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


def cross_mixes(fusion: FusionConfig, source: Prompt, target: Prompt, steps: int) -> tuple[CrossMix | None, ...]:
    """The coefficients of every edit step; None where cross-attention is not fused.

    With alpha (1 inside a word's window, else 0) and the reweighting r:
    fused = alpha * r * (source @ from_source + own * edited) + (1 - alpha) * edited.

    Raises:
        UserError: for words that are not in the target prompt, or unequal word counts with "replace".
    """
    align = replacement_map if fusion.word_map == "replace" else refinement_map
    word_map = align(source, target)
    reweight = torch.ones(target.places, dtype=torch.float64)
    for word, factor in fusion.reweight.items():
        reweight[list(target.tokens_of(word))] = factor
    alpha = _word_alpha(fusion.cross_window, fusion.word_windows, target, steps)
    for word in fusion.reweight:
        if not alpha[:, list(target.tokens_of(word))].any():
            raise UserError(
                f"fusion.reweight has no effect on {word!r}, whose cross-attention is fused at no step: open "
                "fusion.cross_window, or a window of its own in fusion.word_windows."
            )
    # Most steps are alike, and a mix is large where prompts have hundreds of places.
    opened = [tuple(row) for row in alpha.tolist()]
    mixes = {row: _mix(word_map, reweight, torch.tensor(row, dtype=torch.float64)) for row in set(opened)}
    return tuple(mixes[row] for row in opened)


def _word_alpha(
    window: StepWindow | None, word_windows: Mapping[str, StepWindow], target: Prompt, steps: int
) -> Tensor:
    """Float64 steps,T: 1 where the token's window is open."""
    alpha = torch.zeros(steps, target.places, dtype=torch.float64)
    own = [(list(target.tokens_of(word)), opened) for word, opened in word_windows.items()]
    for tokens, opened in [(list(range(target.places)), window), *own]:
        active = cross_steps(opened, steps)
        alpha[:, tokens] = 0
        alpha[active.start : active.stop, tokens] = 1
    return alpha


def _mix(word_map: WordMap, reweight: Tensor, alpha: Tensor) -> CrossMix | None:
    if not alpha.any():
        return None
    from_source = word_map.from_source * (reweight * alpha)
    own = word_map.own * reweight * alpha + (1 - alpha)
    return CrossMix(from_source if from_source.any() else None, own if own.any() else None)
