"""Distances between sets of clips: closed forms, loops and SciPy; then from videos to the table."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm
from transformers.models.videomae.video_processing_videomae import VideoMAEVideoProcessor

from fatezero.clips.video import read_clip, write_frames
from fatezero.commands.evaluate import evaluate
from fatezero.types import ClipSpec, Frames
from fatezero_eval.metrics.set_distance import Features, biased_mmd, frechet_distance, unbiased_mmd
from fatezero_eval.networks.video_features import load_video_network
from fatezero_eval.options import ScoringOptions
from fatezero_eval.scoring.set_distances import DISTANCES_OF_SETS
from tests.eval import video_network_folders as folders

CLIPS = 7


def drawn(videos: int, width: int, seed: int, shift: float = 0.0) -> Features:
    rng = np.random.default_rng(seed)
    return shift + rng.normal(size=(videos, width)) @ rng.normal(size=(width, width))


def whitened(videos: int, width: int) -> Features:
    """A sample whose mean is 0 and whose covariance is the identity."""
    raw = drawn(videos, width, 0)
    centred = raw - raw.mean(0)
    return np.linalg.qr(centred)[0] * np.sqrt(videos - 1)


def test_frechet_distance_of_known_normal_distributions() -> None:
    standard = whitened(40, 5)
    stretch, shift = np.array([0.5, 1, 2, 3, 4]), np.array([1.0, 0, -2, 0, 0])
    assert frechet_distance(standard, standard) == pytest.approx(0, abs=1e-9)
    known = (shift**2).sum() + ((stretch - 1) ** 2).sum()
    assert frechet_distance(standard, standard * stretch + shift) == pytest.approx(known, abs=1e-9)


@pytest.mark.parametrize("videos", [(30, 50), (5, 6)])
def test_frechet_distance_beside_scipy(videos: tuple[int, int]) -> None:
    """Also of fewer videos than features, where a covariance has no full rank."""
    one, other = drawn(videos[0], 8, 1), drawn(videos[1], 8, 2, shift=0.5)
    first, second = np.cov(one.T), np.cov(other.T)
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-9)


def like(one: Features, other: Features) -> float:
    return float((one @ other / len(one)) ** 2)


def test_the_biased_discrepancy_is_that_of_jedi() -> None:
    """Beside the definition, pair by pair; and on the example of the published file, worked out by hand."""
    one, other = drawn(9, 4, 1), drawn(6, 4, 2)
    means = [
        np.mean([[like(a, b) for a in left] for b in right])
        for left, right in ((one, one), (other, other), (one, other))
    ]
    assert biased_mmd(one, other) == pytest.approx(100 * (means[0] + means[1] - 2 * means[2]), rel=1e-12)
    assert biased_mmd(np.array([[1.0, 0], [0, 1]]), np.array([[2.0, 0]])) == pytest.approx(100 * (0.125 + 4 - 1))


def pair_by_pair(one: Sequence[Features], other: Sequence[Features]) -> float:
    """Over ordered pairs of different clips, each clip's videos averaged first."""

    def between(left: Features, right: Features) -> float:
        return float(np.mean([like(a, b) for a in left for b in right]))

    return 100 * float(
        np.mean(
            [
                between(one[c], one[d]) + between(other[c], other[d]) - 2 * between(one[c], other[d])
                for c, d in permutations(range(len(one)), 2)
            ]
        )
    )


def test_the_unbiased_discrepancy_pair_by_pair() -> None:
    one = [drawn(count, 4, seed) for seed, count in enumerate((1, 3, 2, 1, 1))]
    other = [drawn(count, 4, 10 + seed, 0.3) for seed, count in enumerate((1, 1, 2, 4, 1))]
    value, error = unbiased_mmd(one, other)
    assert value == pytest.approx(pair_by_pair(one, other), rel=1e-12)
    left_out = [pair_by_pair([*one[:c], *one[c + 1 :]], [*other[:c], *other[c + 1 :]]) for c in range(5)]
    assert error == pytest.approx(np.sqrt(4 / 5 * ((left_out - np.mean(left_out)) ** 2).sum()), rel=1e-9)
    assert unbiased_mmd(one, one) == pytest.approx((0, 0), abs=1e-12)


def test_only_the_biased_discrepancy_grows_as_clips_get_fewer() -> None:
    """Of two samples of one distribution, 300 times."""
    pairs = np.random.default_rng(0).normal(size=(300, 2, 12, 6))
    values, _ = _many(pairs)
    uncertain = values.std() / np.sqrt(len(pairs))
    assert abs(values.mean()) < 3 * uncertain
    assert np.mean([biased_mmd(*pair) for pair in pairs]) > 20 * uncertain


@pytest.mark.parametrize(("shift", "least", "most"), [(0, 1, 2), (1, 0.8, 1.3)])
def test_the_standard_error_is_how_far_values_spread(shift: float, least: float, most: float) -> None:
    """Within a third where two distributions differ, and at most doubled where they do not."""
    pairs = np.random.default_rng(0).normal(size=(300, 2, 12, 6))
    pairs[:, 1] += shift
    values, errors = _many(pairs)
    assert least < np.sqrt((errors**2).mean()) / values.std() < most


def _many(pairs: Features) -> Features:
    """Values and standard errors of many pairs of samples, each clip with one video."""
    return np.array([unbiased_mmd(*([*each[:, None]] for each in pair)) for pair in pairs]).T


@pytest.fixture
def benchmark(tmp_path: Path, make_frames: Callable[..., Frames]) -> Path:
    """Seven clips, the first with two edits; methods that return the source, the true edit, and noise."""
    lines = []
    rng = np.random.default_rng(0)
    for number in range(CLIPS + 1):
        clip, edit = max(0, number - 1), f"edit{number}"
        source = make_frames(5, clip)
        truth = 255 - source if number else source[:, :, ::-1]
        write_frames(tmp_path / f"clip{clip}", source)
        write_frames(tmp_path / "truths" / edit, truth)
        for method, frames in (("still", source), ("perfect", truth), ("noise", rng.integers(0, 256, source.shape))):
            write_frames(tmp_path / method / edit, np.uint8(frames))
        known = {"id": edit, "clip": {"path": f"clip{clip}"}, "source_prompt": "an owl", "target_prompt": "a red owl"}
        lines.append(json.dumps({**known, "truth": {"clip": f"truths/{edit}"}}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def distances(benchmark: Path, method: str, network: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    options = ScoringOptions(metrics=("temporal_flickering",), video_network=network)
    manifest, out = str(benchmark / "manifest.jsonl"), benchmark / "out" / method
    assert evaluate(method=method, videos=benchmark / method, manifest=manifest, out=out, options=options) == 0
    with (out / "set_distances.csv").open(encoding="utf-8", newline="") as file:
        return {(row["variant"], row["reference"], row["metric"]): row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_from_videos_to_distances(benchmark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folders.videomae(benchmark / "network", width=4)
    still = distances(benchmark, "still", folder)
    told = capsys.readouterr().out
    perfect, noise = distances(benchmark, "perfect", folder), distances(benchmark, "noise", folder)
    mmd, jedi, frechet = DISTANCES_OF_SETS
    assert [*still] == [
        (variant, reference, metric)
        for variant, reference in (("still", "source"), ("still", "truth"), ("truth", "source"))
        for metric in DISTANCES_OF_SETS
    ]
    for same in (still["still", "source", mmd], perfect["perfect", "truth", mmd]):
        assert [float(same[name]) for name in ("value", "standard_error")] == pytest.approx([0, 0], abs=1e-9)
    assert float(perfect["perfect", "truth", frechet]["value"]) == pytest.approx(0, abs=1e-6)
    assert float(perfect["perfect", "truth", jedi]["value"]) == pytest.approx(0, abs=1e-9)
    for metric in DISTANCES_OF_SETS:
        from_source = float(perfect["perfect", "source", metric]["value"])
        assert from_source == pytest.approx(float(still["truth", "source", metric]["value"]))
    for metric in (jedi, frechet):
        near, far = (found["source", metric] for found in (by_reference(perfect), by_reference(noise)))
        assert 0 < near < far
    counts = {name: still["still", "source", mmd][name] for name in ("clips", "videos", "references")}
    assert counts == {"clips": "7", "videos": "8", "references": "7"}
    assert still["still", "source", mmd]["model"].startswith("network:")
    assert "| still | source | 7 clips, 8 : 7 videos | 0 ± 0 |" in told

    network = load_video_network(folder)
    frames = [_shown(benchmark / "truths" / f"edit{number}") for number in range(8)]
    seen = np.stack([network.features(each) for each in frames]).astype(np.float64)
    sources = [_shown(benchmark / f"clip{clip}") for clip in range(CLIPS)]
    beside = np.stack([network.features(each) for each in sources]).astype(np.float64)
    value, error = unbiased_mmd([seen[:2], *seen[2:, None]], [*beside[:, None]])
    row = perfect["perfect", "source", mmd]
    assert (float(row["value"]), float(row["standard_error"])) == pytest.approx((value, error), rel=1e-6)
    assert float(perfect["perfect", "source", frechet]["value"]) == pytest.approx(frechet_distance(seen, beside))


def by_reference(found: dict[tuple[str, str, str], dict[str, str]]) -> dict[tuple[str, str], float]:
    """Of the method itself."""
    return {name[1:]: float(row["value"]) for name, row in found.items() if name[0] != "truth"}


@pytest.mark.slow
def test_what_cannot_be_told_is_said(benchmark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Too few videos for a covariance, too few clips for anything, a network that fails, and no network."""
    folder = folders.videomae(benchmark / "network")
    found = distances(benchmark, "noise", folder)
    mmd, jedi, frechet = DISTANCES_OF_SETS
    assert found["noise", "source", frechet]["reason"].startswith("7 videos span no covariance of 24 features")
    assert found["noise", "source", frechet]["value"] == ""
    assert found["noise", "source", mmd]["value"] != ""
    for edit in ("edit2", "edit3"):
        shutil.rmtree(benchmark / "noise" / edit)
    manifest, out = str(benchmark / "manifest.jsonl"), benchmark / "out" / "noise"
    options = ScoringOptions(metrics=("temporal_flickering",), video_network=folder)
    capsys.readouterr()
    assert evaluate(method="noise", videos=benchmark / "noise", manifest=manifest, out=out, options=options) == 1
    told = capsys.readouterr().out
    assert told.count(f"{mmd}, {jedi}, {frechet}: both sets know 5 clips, and at least 6 are needed.") == 1
    assert "| noise | truth | 5 clips, 6 : 6 videos | - | - | - |" in told

    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    VideoMAEVideoProcessor(**sizes).save_pretrained(folder)
    assert evaluate(method="noise", videos=benchmark / "noise", manifest=manifest, out=out, options=options) == 1
    complaints = capsys.readouterr().err
    assert complaints.count("the video network on") == 1
    assert "16" in complaints
    assert (out / "set_distances.csv").is_file()
    options = replace(options, video_network=None)
    assert evaluate(method="noise", videos=benchmark / "noise", manifest=manifest, out=out, options=options) == 1
    assert not (out / "set_distances.csv").exists()


def _shown(folder: Path) -> Frames:
    """Eight frames of a folder of five."""
    return read_clip(ClipSpec(path=str(folder))).frames[[0, 0, 1, 2, 2, 3, 4, 4]]
