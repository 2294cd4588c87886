"""What docs/concepts/metrics-trust.md and experiments/trust/README.md say stands in the shipped tables."""

import csv
from pathlib import Path

import pytest

TRUST = Path(__file__).parents[2] / "experiments" / "trust"


def records(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def better():
    """The shares of edits on which a version beats the true edit."""
    return {
        (r["metric"].partition("@")[0], r["version"]): float(r["better"]) for r in records(TRUST / "preferences.csv")
    }


def coefficients(path):
    whole = [r for r in records(path) if not r["category"]]
    return {(r["metric"].partition("@")[0], r["other"].partition("@")[0]): float(r["spearman"]) for r in whole}


SMOOTH = ("frame_consistency", "frame_consistency/all_pairs", "frame_consistency/vbench", "temporal_flickering")
JUDGED = {
    *("text_alignment", "text_alignment/tgve", "text_alignment/inside/pie_compat", "frame_accuracy"),
    *("directional_similarity", "vlm_yes_no", "vlm_choice"),
}


def test_smoothness_rewards_frozen_and_blurred_video(better):
    for metric in SMOOTH:
        assert better[metric, "frozen"] == 1
        assert min(better[metric, f"blur-{pixels}"] for pixels in ("0.5", "1", "2")) > 0.8
    for metric in ("warp_error", "warp_error/lai2018", "warp_ssim", "warp_error/ff_alpha"):
        assert min(better[metric, f"blur-{pixels}"] for pixels in ("0.5", "1", "2")) > 0.7
    for metric in ("motion_smoothness/flow", "warp_ssim/rave"):
        assert min(better[metric, version] for version in ("frozen", "blur-0.5", "blur-1", "blur-2")) == 1


def test_what_compares_with_the_source_rewards_not_editing(better):
    for metric in ("psnr/outside", "ssim/outside", "motion_fidelity", "motion_fidelity/ff_beta", "track_correlation"):
        assert better[metric, "no edit"] == 1
        assert min(better[metric, f"mixture-{share}"] for share in (25, 50, 75)) > 0.8


def test_dynamic_degree_prefers_what_jumps(better):
    assert 0.6 < better["dynamic_degree", "shuffled"] < 0.75


@pytest.mark.parametrize(("folder", "distance"), [("", "mse/truth"), ("ssim", "ssim/truth")])
def test_smoothness_hardly_follows_the_distance(folder, distance):
    found = coefficients(TRUST / folder / "trust.csv")
    assert all(abs(found[metric, distance]) < 0.2 for metric in SMOOTH)


def test_only_the_judges_metrics_follow_squared_error():
    found = {m: value for (m, other), value in coefficients(TRUST / "trust.csv").items() if other == "mse/truth"}
    blind = {name: value for name, value in found.items() if not name.endswith("/truth")}
    assert {name for name, value in blind.items() if value > 0.4} == JUDGED
    assert found["ssim/truth"] == pytest.approx(0.69, abs=0.005)


def test_of_an_editors_results_preservation_says_nothing_and_consistency_little():
    records_of_all = [r for r in records(TRUST / "edits" / "trust.csv") if not r["category"]]
    found = {r["metric"].partition("@")[0]: r for r in records_of_all if r["other"].startswith("mse/truth")}
    blind = {name: float(r["spearman"]) for name, r in found.items() if not name.endswith("/truth")}
    assert {name for name, value in blind.items() if value > 0.4} == JUDGED - {"directional_similarity"}
    for name in ("warp_ssim/rave", "temporal_flickering", "motion_smoothness/flow", "warp_error"):
        assert float(found[name]["spearman_low"]) > 0
    for name in ("warp_error/lai2018", "warp_error/ff_alpha", "psnr/outside"):
        assert float(found[name]["spearman_low"]) < 0 < float(found[name]["spearman_high"])
    assert max(abs(blind[metric]) for metric in SMOOTH[:3]) < 0.1
