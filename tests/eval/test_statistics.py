"""Means, intervals, paired differences, tests and ranks against known answers and SciPy's own functions."""

import itertools
import math
import random

import numpy as np
import pytest
from scipy import stats

from fatezero.errors import UserError
from fatezero_eval.scoring import suite
from fatezero_eval.scoring.rows import Row
from fatezero_eval.tables import resampling, statistics

PSNR, MSE, CONSISTENCY = "psnr/truth@1", "mse/truth@1", "frame_consistency@1"


def row(variant, clip, value, edit="1", seed=0, metric=PSNR, category=""):
    known = {"defined": 1, "undefined": 0, "reason": "", "model": ""}
    return Row(clip=clip, edit=edit, category=category, variant=variant, seed=seed, metric=metric, value=value, **known)


def rows_of(variant, values, metric=PSNR):
    return [row(variant, f"clip-{number}", value, metric=metric) for number, value in enumerate(values)]


def whole(found, variant):
    (one,) = [each for each in found if each.variant == variant and not each.category]
    return one


def test_means_are_over_clips_after_edits_and_seeds():
    table = [
        row("full", "a", 1.0, edit="a-1"),
        row("full", "a", 2.0, edit="a-2", seed=0),
        row("full", "a", 6.0, edit="a-2", seed=1),
        row("full", "b", 10.0),
        row("full", "c", None),
    ]
    (score,) = statistics.scores(table)
    assert score.interval.value == (3.0 + 10.0) / 2
    assert (score.clips, score.rows, score.undefined) == (2, 4, 1)
    (nothing,) = statistics.scores(table[4:])
    assert (nothing.interval, nothing.clips, nothing.rows, nothing.undefined) == (None, 0, 0, 1)


def test_categories_come_after_all_edits():
    table = [row("full", "a", 1.0, edit="1", category="style"), row("full", "a", 3.0, edit="2", category="object")]
    found = [(score.category, score.interval.value) for score in statistics.scores(table)]
    assert found == [("", 2.0), ("object", 3.0), ("style", 1.0)]


def test_the_order_of_rows_changes_nothing():
    rng = np.random.default_rng(3)
    table = [
        row(variant, f"c{clip}", float(rng.normal()), edit=f"{clip}-{edit}", seed=seed, category="ab"[edit])
        for variant, clip, edit, seed in itertools.product(("full", "other"), range(9), range(2), range(3))
    ]
    shuffled = random.Random(0).sample(table, len(table))
    assert set(statistics.scores(table)) == set(statistics.scores(shuffled))
    assert set(statistics.differences(table, "full")) == set(statistics.differences(shuffled, "full"))
    assert statistics.ranks(table) == statistics.ranks(shuffled)


def test_an_interval_is_scipys_and_does_not_depend_on_its_company():
    values = np.random.default_rng(0).exponential(size=12)
    alone = whole(statistics.scores(rows_of("full", values)), "full").interval
    reference = stats.bootstrap(
        (values,), np.mean, n_resamples=99_999, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert alone.value == pytest.approx(values.mean(), abs=1e-12)
    width = reference.high - reference.low
    assert alone.low == pytest.approx(reference.low, abs=0.05 * width)
    assert alone.high == pytest.approx(reference.high, abs=0.05 * width)
    for count in (1, 5, 19, 20, 43):
        company = [rows_of(f"v{n}", np.random.default_rng(n).normal(size=12)) for n in range(count)]
        together = statistics.scores([*itertools.chain(*company), *rows_of("full", values)])
        assert whole(together, "full").interval == alone


def test_an_interval_holds_95_percent_of_all_resamples():
    """All 6^6 of them, by enumeration; for symmetric values BCa corrects nothing."""
    values = np.array([-5.0, -2.0, -1.0, 1.0, 2.0, 5.0])
    means = np.array(list(itertools.product(values, repeat=6))).mean(axis=1)
    interval = whole(statistics.scores(rows_of("full", values)), "full").interval
    assert np.mean((interval.low <= means) & (means <= interval.high)) == pytest.approx(0.95, abs=0.02)


def test_few_clips_have_no_interval_and_equal_ones_no_width():
    for count in range(1, resampling.FEWEST_CLIPS):
        interval = whole(statistics.scores(rows_of("full", range(count))), "full").interval
        assert interval.value == (count - 1) / 2
        assert not interval.known
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
    interval = whole(statistics.scores(rows_of("full", [100.0] * 6)), "full").interval
    assert (interval.value, interval.low, interval.high) == (100.0, 100.0, 100.0)


def test_intervals_cover_the_truth_about_as_often_as_the_readme_says():
    rng = np.random.default_rng(5)
    samples = [dict(enumerate(rng.normal(size=30))) for _ in range(300)]
    covered = np.mean([found.low <= 0 <= found.high for found in resampling.intervals(samples)])
    assert 0.90 < covered < 0.98


def test_differences_are_paired_by_edit():
    clips = np.random.default_rng(0).normal(scale=50, size=10)  # far apart, so unpaired intervals would be wide
    gains = np.linspace(0.5, 1.5, 10)
    table = [*rows_of("full", clips), *rows_of("other", clips + gains)]
    table += [row("other", "clip-0", clips[0] + gains[0], seed=1)]  # a variant with chance has more seeds
    table += [row("full", "clip-0", 7.0, edit="2"), row("other", "clip-0", None, edit="2")]
    table += [row("other", "clip-1", 7.0, edit="3")]
    found = whole(statistics.differences(table, "full"), "other")
    assert found.reference == "full"
    assert found.interval.value == pytest.approx(1.0)
    assert 0.5 < found.interval.low < found.interval.high < 1.5
    assert (found.clips, found.undefined) == (10, 2)
    assert found.p_value == pytest.approx(stats.wilcoxon(gains).pvalue)


def test_wilcoxon_by_enumerating_all_signs():
    changes = np.array([0.3, -0.1, 0.8, 0.5, -0.2, 0.9, 1.4])
    sizes = stats.rankdata(np.abs(changes))
    observed = min(sizes[changes > 0].sum(), sizes[changes < 0].sum())
    signs = [np.array(sign) for sign in itertools.product((True, False), repeat=7)]
    smaller = [min(sizes[sign].sum(), sizes[~sign].sum()) <= observed for sign in signs]
    table = [*rows_of("full", [0.0] * 7), *rows_of("other", changes)]
    assert whole(statistics.differences(table, "full"), "other").p_value == pytest.approx(np.mean(smaller))


def test_no_difference_is_no_evidence():
    table = [*rows_of("full", [1.0, 2.0, 3.0]), *rows_of("same", [1.0, 2.0, 3.0]), *rows_of("none", [None] * 3)]
    found = statistics.differences(table, "full")
    assert whole(found, "same").p_value == 1.0
    assert whole(found, "same").interval.value == 0.0
    assert (whole(found, "none").p_value, whole(found, "none").interval) == (None, None)
    assert whole(found, "none").undefined == 3
    with pytest.raises(UserError, match=r"no variant 'half'.*full, same, none"):
        statistics.differences(table, "half")


def test_holm_by_hand():
    def difference(variant, p_value, metric=PSNR):
        return statistics.Difference(variant, "full", metric, "", None, 6, 0, p_value)

    found = [
        difference("a", 0.02),
        difference("b", 0.01),
        difference("c", 0.5),
        difference("d", None),
        difference("a", 0.04, MSE),
        difference("no edit", 0.001),
        difference("e", 0.02),
    ]
    assert statistics.holm(found) == pytest.approx([0.06, 0.04, 0.5, None, 0.04, None, 0.06])


@pytest.mark.parametrize(("metric", "order"), [(PSNR, (1, 1, 3)), (MSE, (2, 2, 1))])
def test_ranks_are_shared_where_nothing_tells_methods_apart(metric, order):
    clips = np.random.default_rng(1).normal(scale=5, size=12)
    noise = np.array([1, -1] * 6) * 0.3
    high, alike, low = clips + 2, clips + 2 + noise, clips
    table = [
        *rows_of("high", high, metric),
        *rows_of("alike", alike, metric),
        *rows_of("low", low, metric),
        *rows_of("no edit", clips + 9, metric),
        *rows_of("absent", [None] * 12, metric),
    ]
    found = statistics.ranks(table)
    assert found == {(variant, metric, ""): rank for variant, rank in zip(("high", "alike", "low"), order, strict=True)}


def test_what_cannot_be_ranked_has_no_rank():
    assert statistics.ranks([*rows_of("a", [1.0] * 5), *rows_of("b", [2.0] * 5)]) == {}
    aimless = "valid_pixels@1"
    assert statistics.ranks([*rows_of("a", [1.0] * 9, aimless), *rows_of("b", [2.0] * 9, aimless)]) == {}


def test_directions():
    assert [suite.by_id(name).direction for name in (PSNR, MSE, "valid_pixels@1")] == [1, -1, 0]
    with pytest.raises(UserError, match=r"'warp_error@9'.*score the clips again"):
        suite.by_id("warp_error@9")
