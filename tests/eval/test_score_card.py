"""The small table that scoring ends with, and what is said of a judge that does not know the words."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatezero.commands.score_words import tell_scores, unknown_words
from fatezero_eval.options import PICTUREBOOK_CLIP
from fatezero_eval.scoring.evaluation import Evaluation
from fatezero_eval.scoring.rows import Row
from fatezero_eval.scoring.suite import METRICS, choose
from fatezero_eval.tables.score_card import score_card


def row(variant: str, metric: str, clip: str, value: float | None) -> Row:
    (known,) = choose([metric])
    stated = {"edit": clip, "category": "shape", "seed": 0, "defined": 1, "undefined": 0, "reason": "", "model": ""}
    return Row(clip=clip, variant=variant, metric=known.id, value=value, **stated)  # type: ignore[arg-type]


def test_means_over_clips_stand_in_columns() -> None:
    rows = [
        *(row("no edit", "psnr/truth", clip, value) for clip, value in (("a", 10.0), ("b", 20.0))),
        *(row("ours", "psnr/truth", clip, value) for clip, value in (("a", 20.0), ("b", 25.0))),
        *(row("ours", "mask_iou", clip, value) for clip, value in (("a", 0.5), ("b", None))),
        row("no edit", "mask_iou", "a", None),
        row("ours", "psnr/outside", "a", None),
    ]
    assert score_card(rows).splitlines() == [
        "         psnr/truth  mask_iou",
        "                  ↑         ↑",
        "ours           22.5       0.5",
        "no edit          15         -",
    ]
    assert score_card([row("ours", "psnr/outside", "a", None)]) == ""


def test_what_does_not_fit_is_counted() -> None:
    rows = [row(variant, metric.name, "a", 0.5) for variant in ("v" * 50, "source") for metric in METRICS]
    *lines, last = score_card(rows).splitlines()
    assert max(map(len, lines)) <= 79
    shown = len(lines[0].split())
    assert last == f"({len(METRICS) - shown} more metrics are in the table)"


def test_words_that_the_shipped_judge_does_not_know() -> None:
    assert unknown_words(["a red Jeep on the road", "a red Porsche on the road", "porsche"]) == ["porsche"]


@pytest.mark.parametrize(
    ("metric", "judge", "told"),
    [
        ("text_alignment", PICTUREBOOK_CLIP, True),
        ("text_alignment", "ViT-B-32/openai", False),
        ("psnr/truth", PICTUREBOOK_CLIP, False),
    ],
)
def test_only_what_the_shipped_judge_judged_is_doubted(
    metric: str, judge: str, capsys: pytest.CaptureFixture[str], *, told: bool
) -> None:
    rows = (row("ours", metric, "a", 0.5),)
    tell_scores(Evaluation(rows, {}, Path("rows.jsonl"), Path("rows.csv"), prompts=("a red Porsche",)), judge)
    assert ("and not 'porsche'" in capsys.readouterr().out) is told
