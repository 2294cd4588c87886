"""A prompt as the text encoder reads it: words, and the tokens of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any, NoReturn
from unicodedata import category, normalize

from fatezero.config import MAX_PROMPT_CONTEXTS
from fatezero.errors import UserError
from fatezero.system.terminal import quoted, shortened

WORDS_SHOWN = 1000  # characters of a prompt's words in a message
PART_OF_WORDS = "*#@%&/\\-_"  # of what Unicode calls punctuation
WEIGHED = re.compile(r"\(\s*(?P<words>[^():\s][^():]*):\s*(?P<factor>[+-]?\d+(\.\d+)?)\s*\)")

Words = tuple[tuple[str, tuple[int, ...]], ...]
Token = tuple[int, tuple[int, int]]  # its id, and where it stands in the text; begin and end stand nowhere


@dataclass(frozen=True)
class Prompt:
    """A prompt as the text encoder reads it.

    Attributes:
        text: the prompt.
        ids: token ids with begin and end of each context, up to the last one's end; a word of several vectors has as
            many.
        words: the words between white space, as (word, positions of its tokens).
        bare_words: the same words without the punctuation around them.
        spelled: words that the tokenizer knows in no other way than letter by letter.
        context: places of what the text encoder reads at once, with begin, end and the padding that is attended to.
        contexts: how many of them stand side by side; those without words of the prompt are the empty prompt's.
        begins: whether each context begins with a mark, as CLIP's do and T5's do not.
    """

    text: str
    ids: tuple[int, ...]
    words: Words
    bare_words: Words
    spelled: tuple[str, ...]
    context: int
    contexts: int = 1
    begins: bool = True

    @property
    def places(self) -> int:
        """Tokens of all contexts, with padding."""
        return self.contexts * self.context

    @property
    def ids_by_context(self) -> list[tuple[int, ...]]:
        """Token ids of each context, with its marks, without padding."""
        read = [self.ids[i : i + self.context] for i in range(0, len(self.ids), self.context)]
        empty = (self.ids[0], self.ids[-1])
        return read + [empty] * (self.contexts - len(read))

    @property
    def ends(self) -> list[int]:
        """Where each context's end mark is; padding follows it."""
        return [i * self.context + len(ids) - 1 for i, ids in enumerate(self.ids_by_context)]

    @property
    def beginnings(self) -> list[int]:
        """Where each context's begin mark is."""
        return list(range(0, self.places, self.context)) if self.begins else []

    @property
    def own_places(self) -> list[int]:
        """Where the prompt's own tokens are, begin and end marks left out."""
        marks = {*self.beginnings, *self.ends}
        return [place for place in range(len(self.ids)) if place not in marks]

    def tokens_of(self, word: str | int) -> tuple[int, ...]:
        """Positions of the tokens of a word.

        Args:
            word: a word as it stands in the prompt, all its occurrences; several words that follow each other; or the
                index of a word. Punctuation around a word may be left out, and is then no part of it; case counts
                only where it tells words apart.

        Raises:
            UserError: if the prompt has no such word, or several that differ in case alone and none as it is written.
        """
        if isinstance(word, int):
            if not 0 <= word < len(self.words):
                raise UserError(f"The prompt {quoted(self.text)} has {len(self.words)} words: none has index {word}.")
            return self.words[word][1]
        wanted = word.split()
        found = self._as_written(wanted) or self._in_any_case(wanted)
        if found:
            return tuple(token for _, tokens in found for token in tokens)
        listed = shortened(", ".join(quoted(one) for one, _ in self.words), WORDS_SHOWN)
        raise UserError(f"{quoted(word)} is not a word of the prompt {quoted(self.text)}; its words are: {listed}.")

    def _as_written(self, wanted: Sequence[str]) -> Words:
        """Words in a row that are written so, with the punctuation around them or without."""
        found: list[tuple[str, tuple[int, ...]]] = []
        for place in self._places(wanted):
            pairs = list(zip(self.words[place], self.bare_words[place], strict=True))
            if all(one in {whole[0], bare[0]} for one, (whole, bare) in zip(wanted, pairs, strict=True)):
                found += [whole if one == whole[0] else bare for one, (whole, bare) in zip(wanted, pairs, strict=True)]
        return tuple(found)

    def _in_any_case(self, wanted: Sequence[str]) -> Words:
        """Words in a row that are the same but for case, the way accents are written and the punctuation around them.

        Raises:
            UserError: if they are written in several ways.
        """
        meant = [folded(_bare(one)) for one in wanted]
        rows = [self.bare_words[place] for place in self._places(wanted)]
        found = [row for row in rows if [folded(word) for word, _ in row] == meant]
        written = sorted({" ".join(word for word, _ in row) for row in found})
        if len(written) > 1:
            raise UserError(
                f"{quoted(' '.join(wanted))} may be {' or '.join(map(quoted, written))} in the prompt "
                f"{quoted(self.text)}: write the one that is meant."
            )
        return tuple(pair for row in found for pair in row)

    def _places(self, wanted: Sequence[str]) -> list[slice]:
        """Where so many words follow each other."""
        length = len(wanted)
        return [slice(i, i + length) for i in range(len(self.words) - length + 1)] if wanted else []


def read_prompt(tokenizer: Any, text: str, contexts: int = 1, most: int = MAX_PROMPT_CONTEXTS) -> Prompt:
    """Tokenise a prompt and find its words' tokens by their character offsets.

    A token of several vectors (`token`, `token_1`, …, as textual inversions are kept) stands for all of them.

    Args:
        tokenizer: CLIPTokenizer.
        text: the prompt.
        contexts: how many contexts of the text encoder the prompt may fill, each between begin and end marks of its
            own (the idea of the "long prompt weighting" pipelines among diffusers' community examples). It is cut where
            a context is full, wherever in a word that is.
        most: contexts that may be asked for, which the refusal of a longer prompt says.

    Raises:
        UserError: if the prompt is longer than these contexts, or holds what its tokenizer cannot read.
    """
    context = int(tokenizer.model_max_length)
    read = _cut_into_contexts(_tokens(tokenizer, text), context)
    prompt = _prompt(tokenizer, text, read, context, contexts, begins=True)
    if len(read) > contexts * context:
        _refuse_length(prompt, len(read), most)
    return prompt


def read_unmarked_prompt(tokenizer: Any, text: str, context: int, *, attends_to_padding: bool) -> Prompt:
    """As `read_prompt`, where no mark begins a prompt, as in T5's.

    Args:
        tokenizer: T5TokenizerFast.
        text: the prompt.
        context: tokens that the text encoder reads, with the end mark.
        attends_to_padding: whether attention reads places behind the prompt; if not, the prompt has no others than its
            own.

    Raises:
        UserError: if the prompt is longer, or holds what its tokenizer cannot read.
    """
    read = _tokens(tokenizer, text)
    if len(read) > context:
        raise UserError(
            f"The prompt {quoted(text)} has {len(read) - 1} tokens, and the text encoder reads {context - 1} beside "
            "the end mark: shorten it."
        )
    return _prompt(tokenizer, text, read, context if attends_to_padding else len(read), 1, begins=False)


def read_framed_prompt(tokenizer: Any, text: str, context: int, template: str, cropped: int) -> Prompt:
    """As `read_prompt`, where the text encoder reads a prompt within a template, as HunyuanVideo's does.

    Args:
        tokenizer: of a language model.
        text: the prompt.
        context: tokens that are kept of it, with the marks behind it.
        template: where {} stands for the prompt.
        cropped: tokens of the template before the prompt, which are not kept.

    Raises:
        UserError: if the prompt is longer, or holds what its tokenizer cannot read.
    """
    before = template.index("{}")
    read = [(token, (a - before, b - before)) for token, (a, b) in _tokens(tokenizer, template.format(text))[cropped:]]
    if len(read) > context:
        raise UserError(
            f"The prompt {quoted(text)} has {len(read)} tokens with the marks behind it, and the text encoder reads "
            f"{context}: shorten it."
        )
    return _prompt(tokenizer, text, read, context, 1, begins=False)


def joined_prompts(first: Prompt, second: Prompt, padding: int) -> Prompt:
    """A prompt that two text encoders read, whose tokens stand one behind the other: a word's are those of both.

    Args:
        first: as the first encoder reads it, in one context.
        second: as the second one reads it.
        padding: the token that fills up the first one's context.
    """
    behind = first.places

    def both(ours: Words, theirs: Words) -> Words:
        pairs = zip(ours, theirs, strict=True)
        return tuple((word, (*here, *(behind + place for place in there))) for (word, here), (_, there) in pairs)

    return Prompt(
        text=first.text,
        ids=(*first.ids, *(padding,) * (behind - len(first.ids)), *second.ids),
        words=both(first.words, second.words),
        bare_words=both(first.bare_words, second.bare_words),
        spelled=tuple(word for word in first.spelled if word in second.spelled),
        context=behind + second.places,
        begins=first.begins,
    )


def _tokens(tokenizer: Any, text: str) -> list[Token]:
    """A text's tokens with its marks, a token of several vectors as often as it has vectors."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"The prompt {quoted(text)} holds half a character (a lone surrogate): write it in UTF-8.")
    encoded = tokenizer(text, return_offsets_mapping=True)
    added = tokenizer.added_tokens_encoder
    read = list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
    return [(each, span) for token, span in read for each in _vectors(tokenizer, added, token)]


def _prompt(tokenizer: Any, text: str, read: Sequence[Token], context: int, contexts: int, *, begins: bool) -> Prompt:
    """A prompt with its words, found by their characters' places."""
    ids, offsets = [token for token, _ in read], [span for _, span in read]
    matches = list(re.finditer(r"\S+", text))
    words = tuple((match.group(), _tokens_within(offsets, match.span())) for match in matches)
    spans = [(match.start() + a, match.start() + b) for match in matches for a, b in [_bare_span(match.group())]]
    bare_words = tuple((text[a:b], _tokens_within(offsets, (a, b))) for a, b in spans)
    _check_read(tokenizer, text, ids, words)
    added = set(tokenizer.added_tokens_encoder.values())
    learned = {i for i, token in enumerate(ids) if token in added}
    spelled = tuple(word for word, tokens in words if 2 < len(word) <= len({*tokens} - learned))
    return Prompt(text, tuple(ids), words, bare_words, spelled, context, contexts, begins)


def _cut_into_contexts(read: Sequence[Token], context: int) -> list[Token]:
    """Tokens between begin and end, each context's between its own."""
    begin, *own, end = read
    room = context - 2
    parts = [own[i : i + room] for i in range(0, len(own), room)] or [[]]
    return [token for part in parts for token in (begin, *part, end)]


def _refuse_length(prompt: Prompt, tokens: int, most: int) -> NoReturn:
    context, needed = prompt.context, -(-tokens // prompt.context)
    spelled = shortened(", ".join(map(quoted, prompt.spelled)), WORDS_SHOWN)
    without = f", or leave out words that this checkpoint has to spell letter by letter ({spelled})" if spelled else ""
    if most == 1:
        raise UserError(
            f"The prompt {quoted(prompt.text)} has {tokens - 2 * needed} tokens, and the text encoder reads "
            f"{context - 2}: shorten it{without}."
        )
    longer = f", or set prompt_contexts of the edit to {needed}" if needed <= most else ""
    raise UserError(
        f"The prompt {quoted(prompt.text)} has {tokens - 2 * needed} tokens, which take {needed} contexts of the text "
        f"encoder ({context - 2} tokens each, beside begin and end); prompt_contexts is {prompt.contexts}: shorten "
        f"it{longer}{without}."
    )


def _vectors(tokenizer: Any, added: Mapping[str, int], token: int) -> list[int]:
    """The tokens that one stands for: itself, and those of its further vectors."""
    if token not in added.values():
        return [token]
    name = tokenizer.convert_ids_to_tokens(token)
    further = takewhile(lambda each: each in added, (f"{name}_{i}" for i in count(1)))
    return [token, *(added[each] for each in further)]


def _tokens_within(offsets: Sequence[tuple[int, int]], span: tuple[int, int]) -> tuple[int, ...]:
    return tuple(i for i, (a, b) in enumerate(offsets) if a < b and a < span[1] and b > span[0])


def _bare_span(word: str) -> tuple[int, int]:
    """Where a word is without the punctuation around it; one of punctuation alone is as it is."""
    own = [i for i, letter in enumerate(word) if category(letter)[0] != "P" or letter in PART_OF_WORDS]
    return (own[0], own[-1] + 1) if own else (0, len(word))


def _bare(word: str) -> str:
    return word[slice(*_bare_span(word))]


def folded(word: str) -> str:
    """A word without case, accents written as one letter with what they stand on."""
    return normalize("NFC", word.casefold())


def _check_read(tokenizer: Any, text: str, ids: Sequence[int], words: Words) -> None:
    special = {*tokenizer.all_special_ids}
    for word, tokens in words:
        if any(ids[token] in special for token in tokens):
            raise UserError(
                f"The prompt {quoted(text)} holds {quoted(word)}, which the checkpoint's tokenizer reads as a mark of "
                "begin, end or the unknown: write it in letters that the checkpoint knows."
            )


def read_weights(text: str) -> tuple[str, dict[str, float]]:
    """A prompt that weighs words as (word:1.2), without the brackets; and the weight of each word, or words in a row.

    Raises:
        UserError: for brackets that are no weight, and a word that is weighed in one place and stands in others too.
    """
    weighed = {match["words"].strip(): float(match["factor"]) for match in WEIGHED.finditer(text)}
    plain = WEIGHED.sub(lambda match: match["words"].strip(), text)
    if re.search(r"[()]", plain):
        raise UserError(
            f"The prompt {quoted(text)} has brackets that are no weight: write (word:1.2), or turn prompt_weights off."
        )
    bare = [folded(_bare(word)) for word in plain.split()]
    for words in weighed:
        row = [folded(_bare(word)) for word in words.split()]
        if sum(bare[i : i + len(row)] == row for i in range(len(bare))) > 1:
            raise UserError(
                f"The prompt {quoted(text)} weighs {quoted(words)}, which it holds more than once: weights are of a "
                "word wherever it stands; use fusion.reweight if that is meant."
            )
    return plain, weighed
