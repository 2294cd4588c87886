"""What a study shows and asks, as values. Light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero_eval.options import check_method_name

QUESTIONS: Mapping[str, str] = {
    "overall": "Which video is the better edit, all in all?",
    "text": "Which video shows better what the text asks for?",
    "preservation": "Which video keeps better what the text does not ask to change?",
    "consistency": "Which video looks more consistent and natural as it moves?",
}
"""What studies of video editing ask, by name."""
LONGEST = 300  # characters of a question or a title


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What raters are shown and asked.

    Attributes:
        variants: which methods are compared; all by default.
        edits: how many edits of each category are shown, the first ones; all by default.
        pairs: how many pairs each rater is asked, drawn for each; all by default. Checks come on top.
        checks: how many pairs have a known answer: a video beside itself in pieces.
        questions: asked of each pair: overall, text, preservation, consistency, or `name=A question of your own?`.
        ties: whether "no difference" is an answer.
        height: rows of each video, at most; larger ones are scaled down.
        seed: of the drawing of sides, order and checks.
        title: the page's heading.
    """

    variants: tuple[str, ...] = ()
    edits: int | None = None
    pairs: int | None = None
    checks: int = 3
    questions: tuple[str, ...] = ("overall",)
    ties: bool = True
    height: int = 384
    seed: int = 0
    title: str = "Which video is the better edit?"

    def __post_init__(self) -> None:
        """Refuse what asks nothing."""
        counts = {"edits": (self.edits, 1), "pairs": (self.pairs, 1), "checks": (self.checks, 0)}
        counts |= {"height": (self.height, 16), "seed": (self.seed, 0)}
        for name, (value, least) in counts.items():
            if value is not None and value < least:
                raise UserError(f"{name} is {value}: it is at least {least}.")
        if not self.questions:
            raise UserError(f"questions is empty: name some of {', '.join(QUESTIONS)}, or write name=Your question?")
        if len(self.asked) < len(self.questions):
            raise UserError("A question's name stands in questions twice: give each its own.")
        if not 0 < len(self.title.strip()) <= LONGEST:
            raise UserError(f"title has {len(self.title.strip())} characters: it has 1 to {LONGEST}.")

    @property
    def asked(self) -> dict[str, str]:
        """The questions' texts by name."""
        return dict(map(_question, self.questions))


def _question(stated: str) -> tuple[str, str]:
    name, equals, text = stated.partition("=")
    if not equals and name in QUESTIONS:
        return name, QUESTIONS[name]
    if not equals or not name.strip() or not 0 < len(text.strip()) <= LONGEST:
        raise UserError(
            f"questions has {quoted(stated)}: choose some of {', '.join(QUESTIONS)}, or write name=Your question?"
        )
    return name.strip(), text.strip()


@dataclass(frozen=True, kw_only=True)
class TheirVideos:
    """A method whose videos lie outside any run.

    Attributes:
        method: what it is called.
        folder: its videos, as for `fatezero evaluate --videos`.
    """

    method: str
    folder: Path

    def __post_init__(self) -> None:
        """Refuse a name that other rows have."""
        check_method_name(self.method)
