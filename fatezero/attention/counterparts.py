"""Which words of the target prompt stand where words of the source prompt stood."""

from __future__ import annotations

from collections.abc import Collection
from difflib import SequenceMatcher

from fatezero.attention.prompts import Prompt, folded


def counterparts(source: Prompt, target: Prompt, tokens: Collection[int]) -> tuple[int, ...]:
    """The target's tokens that stand for these of the source, by an alignment of the prompts' words.

    Words that both prompts hold in order stand for each other (Ratcliff and Obershelp's matching blocks, as difflib
    finds them). Between them as many words as before stand for each other one by one, more or fewer all for all.

    Args:
        source: the source prompt.
        target: the target prompt.
        tokens: positions of the source's tokens.

    Returns:
        Positions in the target, in order; none where the words were taken out and nothing put in their places.
    """
    before, after = ([folded(word) for word, _ in prompt.bare_words] for prompt in (source, target))
    asked = {i for i, (_, own) in enumerate(source.words) if not set(own).isdisjoint(tokens)}
    found: set[int] = set()
    for _, start, end, first, last in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        inside = asked.intersection(range(start, end))
        if end - start == last - first:
            found |= {i - start + first for i in inside}
        elif inside:
            found.update(range(first, last))
    return tuple(token for i in sorted(found) for token in target.bare_words[i][1])
