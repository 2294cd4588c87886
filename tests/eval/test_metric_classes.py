"""Every torchmetrics class: its mean over clips against formulas written in NumPy, SciPy and scikit-image.

The functions behind the classes are tested elsewhere; here each class meets clips of unequal length, clips it can
say nothing about, and a good clip beside a bad one.
"""

from __future__ import annotations

import importlib
import math
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchmetrics
from scipy.ndimage import binary_erosion, map_coordinates
from scipy.spatial.distance import cosine, pdist, squareform
from skimage.metrics import structural_similarity
from torchmetrics.functional.image.lpips import _LPIPS

import fatezero_eval.metrics
from fatezero_eval.metrics import answered, consistency, fidelity, flickering, structure, text, warp_error
from fatezero_eval.metrics.aesthetic import AestheticQuality
from fatezero_eval.metrics.clip_mean import ClipMean
from fatezero_eval.metrics.dynamic_degree import DynamicDegree
from fatezero_eval.metrics.families import MetricFamily
from fatezero_eval.metrics.motion_fidelity import MotionFidelity
from fatezero_eval.metrics.motion_smoothness import MotionSmoothness
from fatezero_eval.metrics.niqe import NIQE
from fatezero_eval.metrics.track_correlation import TrackCorrelation
from fatezero_eval.networks.lpips import Lpips
from fatezero_eval.scoring import suite
from tests.eval.niqe_by_hand import niqe_by_hand

LENGTHS = (2, 5, 3)
Clip = tuple[Any, ...]  # NumPy arrays, and for LPIPS its network


@dataclass(frozen=True)
class Examples:
    """Clips as a class takes them, and what is known of them.

    Attributes:
        clips: three of unequal length.
        expected: what the formula gives each of them.
        undefined: one about which the metric has nothing to say.
        better: a clip as good as can be.
        worse: a clip that is not.
        close: relative tolerance; float64 sums in another order.
    """

    clips: list[Clip]
    expected: list[float]
    undefined: Clip
    better: Clip
    worse: Clip
    close: float = 1e-9


def random() -> np.random.Generator:
    return np.random.default_rng(0)


def unit(*shape: int, rng: np.random.Generator) -> np.ndarray:
    vectors = rng.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def text_alignment() -> Examples:
    rng = random()
    target = unit(8, rng=rng)
    clips = [(unit(count, 8, rng=rng), target) for count in LENGTHS]
    return Examples(
        clips=clips,
        expected=[100 * np.mean([1 - cosine(frame, target) for frame in frames]) for frames, _ in clips],
        undefined=(np.empty((0, 8)), target),
        better=(np.stack([target] * 2), target),
        worse=(np.stack([-target] * 2), target),
    )


def frame_accuracy() -> Examples:
    """Of unit vectors the nearer one has the larger cosine; every second frame is nearer to the other prompt."""
    rng = random()
    source, target = unit(2, 8, rng=rng)
    wish = target - source
    lines = [unit(count, 8, rng=rng) for count in LENGTHS]
    clips = [(line * np.sign(line @ wish * (-1) ** np.arange(len(line)))[:, None], source, target) for line in lines]
    nearer = [np.linalg.norm(f - target, axis=1) <= np.linalg.norm(f - source, axis=1) for f, *_ in clips]
    assert [each.sum() for each in nearer] == [1, 3, 2]
    return Examples(
        clips=clips,
        expected=[each.mean() for each in nearer],
        undefined=(np.empty((0, 8)), source, target),
        better=(np.stack([target] * 2), source, target),
        worse=(np.stack([source] * 2), source, target),
    )


def directional_similarity() -> Examples:
    rng = random()
    source, target = unit(2, 8, rng=rng)
    clips = [(unit(count, 8, rng=rng), unit(count, 8, rng=rng), source, target) for count in LENGTHS]
    expected = [
        np.mean([1 - cosine(after - before, target - source) for after, before in zip(edited, clip, strict=True)])
        for edited, clip, *_ in clips
    ]
    edited, clip, *prompts = clips[1]
    half = np.concatenate([edited, clip[:2]]), np.concatenate([clip, clip[:2]])
    clips[1] = (*half, *prompts)  # two frames that did not change are left out
    return Examples(
        clips=clips,
        expected=expected,
        undefined=(clip, clip, source, target),
        better=(target[None], source[None], source, target),
        worse=(source[None], target[None], source, target),
    )


def pick_score() -> Examples:
    rng = random()
    target, scale = unit(8, rng=rng), np.array(4.6)
    clips = [(unit(count, 8, rng=rng), target, scale) for count in LENGTHS]
    return Examples(
        clips=clips,
        expected=[math.exp(4.6) * np.mean([1 - cosine(frame, target) for frame in frames]) for frames, *_ in clips],
        undefined=(np.empty((0, 8)), target, scale),
        better=(np.stack([target] * 2), target, scale),
        worse=(np.stack([-target] * 2), target, scale),
    )


def frames_against_frames(formula: Callable[[np.ndarray], float]) -> Examples:
    rng = random()
    clips = [(unit(count, 8, rng=rng),) for count in LENGTHS]
    return Examples(
        clips=clips,
        expected=[formula(frames) for (frames,) in clips],
        undefined=(unit(1, 8, rng=rng),),
        better=(np.stack([clips[0][0][0]] * 4),),
        worse=clips[1],
    )


def frame_consistency() -> Examples:
    return frames_against_frames(lambda frames: np.mean([a @ b for a, b in pairwise(frames)]))


def all_pairs_consistency() -> Examples:
    return frames_against_frames(lambda frames: np.mean([a @ b for a, b in combinations(frames, 2)]))


def vbench_consistency() -> Examples:
    def formula(frames: np.ndarray) -> float:
        return np.mean([(max(0, b @ a) + max(0, b @ frames[0])) / 2 for a, b in pairwise(frames)])

    return frames_against_frames(formula)


def temporal_flickering() -> Examples:
    clips = [(random().random((count, 3, 6, 7)),) for count in LENGTHS]
    return Examples(
        clips=clips,
        expected=[1 - np.abs(np.diff(frames, axis=0)).mean() for (frames,) in clips],
        undefined=(np.zeros((1, 3, 6, 7)),),
        better=(np.full((3, 3, 6, 7), 0.3),),
        worse=(np.stack([np.zeros((3, 6, 7)), np.ones((3, 6, 7))]),),
    )


def motion_fidelity() -> Examples:
    rng = random()
    clips = [tuple(rng.normal(size=(2, count - 1, 2, 6, 7))) for count in LENGTHS]
    still = np.zeros((1, 2, 6, 7))
    return Examples(
        clips=clips,
        expected=[np.hypot(*np.moveaxis(edited - source, 1, 0)).mean() for source, edited in clips],
        undefined=(still[:0], still[:0]),
        better=(still + 2, still + 2),
        worse=(still + 2, still),
    )


def track_correlation() -> Examples:
    rng = random()

    def walks(points: int, count: int) -> np.ndarray:
        steps = rng.normal(size=(points, count, 2)) * (rng.random((points, count, 1)) > 0.3)  # some rest
        return np.cumsum(steps, axis=1)

    def agreement(one: np.ndarray, other: np.ndarray) -> float:
        lengths = np.linalg.norm([one, other], axis=1)
        if (lengths < 0.25).any():
            return float((lengths < 0.25).all())
        return 1 - cosine(one, other)

    def formula(edited: np.ndarray, source: np.ndarray) -> float:
        pairs = [
            [np.mean([agreement(*step) for step in zip(np.diff(a, axis=0), np.diff(b, axis=0), strict=True)])
             for b in source]
            for a in edited
        ]  # fmt: skip
        return (np.max(pairs, axis=0).mean() + np.max(pairs, axis=1).mean()) / 2

    clips = [(walks(4, count), walks(6, count)) for count in LENGTHS]
    there = np.array([[[0, 0], [3, 1]], [[5, 5], [5, 5]]], float)
    back = np.array([[[0, 0], [-3, -1]]], float)
    return Examples(
        clips=clips,
        expected=[formula(*clip) for clip in clips],
        undefined=(there[:, :1], back[:, :1]),
        better=(there, there[::-1] + 7),
        worse=(back, there[:1]),
    )


def dynamic_degree() -> Examples:
    """Flows of which two, three and no pairs reach 6 pixels at 256; one is enough."""
    rng = random()
    unit = 6 * 24 / 256
    clips = []
    for moving in ((True, True), (True, False, True, True), (False, False)):
        directions = rng.normal(size=(len(moving), 2, 24, 30))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = np.where(moving, 2 * unit, 0.9 * unit)[:, None, None] * np.linspace(0, 1, 24 * 30).reshape(24, 30)
        clips.append((directions * lengths[:, None],))

    def formula(flow: np.ndarray) -> float:
        lengths = [np.sort(np.hypot(*pair).ravel())[::-1][: int(24 * 30 * 0.05)].mean() for pair in flow]
        return float(sum(length > unit for length in lengths) >= round(4 * (len(flow) + 1) / 16))

    assert [formula(*clip) for clip in clips] == [1, 1, 0]
    return Examples(
        clips=clips,
        expected=[formula(*clip) for clip in clips],
        undefined=(clips[0][0][:1],),
        better=clips[0],
        worse=clips[2],
    )


def motion_smoothness() -> Examples:
    rng = random()

    def clip(count: int) -> Clip:
        flows = rng.normal(0, 2, (2, (count - 1) // 2, 2, 7, 9))
        return rng.random((count, 3, 7, 9)), *flows

    def moved(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
        rows, columns = np.mgrid[:7, :9]
        places = rows + flow[1], columns + flow[0]
        return np.stack([map_coordinates(channel, places, order=1, mode="nearest") for channel in frame])

    def formula(frames: np.ndarray, forward: np.ndarray, backward: np.ndarray) -> float:
        values = []
        for q, (there, back) in enumerate(zip(forward, backward, strict=True)):
            before, middle, after = frames[2 * q : 2 * q + 3]
            to_before, to_after = -there / 4 + back / 4, there / 4 - back / 4
            values.append(1 - np.abs((moved(before, to_before) + moved(after, to_after)) / 2 - middle).mean())
        return np.mean(values)

    clips = [clip(count) for count in (3, 6, 5)]
    still = np.full((3, 3, 7, 9), 0.4), np.zeros((1, 2, 7, 9)), np.zeros((1, 2, 7, 9))
    return Examples(
        clips=clips,
        expected=[formula(*clip) for clip in clips],
        undefined=clip(2),
        better=still,
        worse=clips[0],
    )


def aesthetic_quality() -> Examples:
    rng = random()
    weight, bias = rng.normal(size=8), np.array(5.0)
    clips = [(unit(count, 8, rng=rng), weight, bias) for count in LENGTHS]
    direction = weight[None] / np.linalg.norm(weight)
    return Examples(
        clips=clips,
        expected=[
            (0.5 + 0.1 * sum(f * w for f, w in zip(frames.T, weight, strict=True))).mean() for frames, *_ in clips
        ],
        undefined=(np.empty((0, 8)), weight, bias),
        better=(direction, weight, bias),
        worse=(-direction, weight, bias),
    )


def niqe() -> Examples:
    rng = random()
    spread = rng.normal(size=(36, 36))
    model = rng.random(36), spread @ spread.T / 36 + np.eye(36)

    def blurred(count: int, height: int = 96) -> Clip:
        noise = rng.random((height, 192, 3 * count))
        smooth = cv2.GaussianBlur(noise, (0, 0), 1.2).transpose(2, 0, 1).reshape(count, 3, height, 192)
        return (smooth - smooth.min()) / np.ptp(smooth), *model

    clips = [blurred(1), blurred(2, height=192), blurred(1)]
    clips[1][0][0, :, :96, :96] = 0.3  # one of its four blocks is flat
    expected = [np.mean([niqe_by_hand(frame, *model) for frame in frames]) for frames, *_ in clips]
    return Examples(
        clips=clips,
        expected=expected,
        undefined=(clips[0][0][..., :191], *model),
        better=clips[0 if expected[0] < expected[2] else 2],
        worse=clips[2 if expected[0] < expected[2] else 0],
        close=1e-6,
    )


def structure_distance() -> Examples:
    rng = random()
    clips = [tuple(rng.normal(size=(2, count, 6, 8))) for count in LENGTHS]

    def formula(source: np.ndarray, edited: np.ndarray) -> float:
        distances = [[squareform(pdist(keys, "cosine")) for keys in version] for version in (source, edited)]
        return np.square(np.subtract(*distances)).mean()

    keys = clips[0][0]
    return Examples(
        clips=clips,
        expected=[formula(*clip) for clip in clips],
        undefined=(keys[:0], keys[:0]),
        better=(keys, 2 * keys),
        worse=clips[0],
    )


def masked_clips(size: tuple[int, int] = (16, 20), dtype: type = np.float64) -> list[Clip]:
    """Frames, their noisy copies and a rectangle that is missing from a last, undefined frame."""
    rng, clips = random(), []
    for count in LENGTHS:
        a, noise = rng.random((count + 1, 3, *size)), rng.normal(0, 0.1, (count + 1, 3, *size))
        mask = np.zeros((count + 1, *size), dtype=bool)
        mask[:count, 2:11, 3 : 10 + count] = True
        mask[0] = True  # the first frame is compared as a whole
        clips.append((a.astype(dtype), np.clip(a + noise, 0, 1).astype(dtype), mask))
    return clips


def fidelity_of(formula: Callable[[np.ndarray, np.ndarray, np.ndarray], float]) -> Examples:
    clips = masked_clips()
    a, b, mask = clips[0]
    return Examples(
        clips=clips,
        expected=[np.mean([formula(*frame) for frame in zip(*clip, strict=True) if frame[2].any()]) for clip in clips],
        undefined=(a, b, np.zeros_like(mask)),
        better=(a, a, mask),
        worse=(a, b, mask),
    )


def squared_error(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    return np.square(a - b)[:, mask].mean()


def mse() -> Examples:
    return fidelity_of(squared_error)


def psnr() -> Examples:
    return fidelity_of(lambda *frame: 10 * np.log10(1 / squared_error(*frame)))


def similarity_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    usual = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(a, b, full=True, channel_axis=0, **usual)[1]


def ssim() -> Examples:
    def formula(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
        whole = similarity_map(a, b)
        return whole[:, 5:-5, 5:-5].mean() if mask.all() else whole[:, mask].mean()

    return fidelity_of(formula)


def lpips() -> Examples:
    """Zhang et al. 2018, equation 1, in float64 on the network's features: random ones, weighted as published."""
    torch.manual_seed(0)
    network = _LPIPS(pretrained=True, net="squeeze", pnet_rand=True)
    weights = [layer.model[-1].weight.numpy()[0] for layer in network.lins]
    mean, spread = (np.array(x)[:, None, None] for x in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))

    def features(frame: np.ndarray) -> list[np.ndarray]:
        pixels = (2 * frame - 1 - mean) / spread
        with torch.no_grad():
            layers = [x.double().numpy()[0] for x in network.net(torch.from_numpy(pixels)[None].float())]
        return [x / np.sqrt(np.square(x).sum(0) + 1e-8) for x in layers]

    def formula(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
        maps = [
            (weight * np.square(x - y)).sum(0)
            for weight, x, y in zip(weights, features(a), features(b), strict=True)
        ]  # fmt: skip
        if mask.all():
            return sum(layer.mean() for layer in maps)
        wide = [
            torch.nn.functional.interpolate(torch.from_numpy(layer)[None, None], size=mask.shape, mode="bilinear")
            for layer in maps
        ]
        return sum(layer[0, 0].numpy() for layer in wide)[mask].mean()

    clips, given = masked_clips((40, 48), np.float32), Lpips(network, "random features")
    a, b, mask = clips[0]
    return Examples(
        clips=[(*clip, given) for clip in clips],
        expected=[np.mean([formula(*frame) for frame in zip(*clip, strict=True) if frame[2].any()]) for clip in clips],
        undefined=(a, b, np.zeros_like(mask), given),
        better=(a, a, mask, given),
        worse=(a, b, mask, given),
        close=1e-4,  # float32 features, their differences squared
    )


def mask_iou() -> Examples:
    rng = random()
    clips = [tuple(rng.random((2, count, 6, 7)) > 0.4) for count in LENGTHS]
    expected = [
        np.mean([np.sum(a & b) / np.sum(a | b) for a, b in zip(found, true, strict=True)]) for found, true in clips
    ]
    found, true = clips[1]
    empty = np.zeros_like(found)
    clips[1] = np.concatenate([found, empty]), np.concatenate([true, empty])  # frames without masks are left out
    return Examples(
        clips=clips, expected=expected, undefined=(empty, empty), better=(found, found), worse=(found, ~found)
    )


def panning(formula: Callable[[np.ndarray, np.ndarray, np.ndarray], float]) -> Examples:
    """Noise on a picture that moves by 3 to the left and 2 down a frame: what a pair shares is found by slicing."""
    rng = random()
    canvas = rng.random((3, 60, 60))

    def clip(count: int, noise: float) -> Clip:
        starts = [(12 - 2 * t, 10 + 3 * t) for t in range(count)]
        frames = np.stack([canvas[:, row : row + 24, column : column + 30] for row, column in starts])
        forward = np.broadcast_to(np.array([-3.0, 2.0])[:, None, None], (count - 1, 2, 24, 30)).copy()
        return frames + rng.normal(0, noise, frames.shape), forward, -forward

    def pairs(frames: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        valid = np.zeros((24, 30), dtype=bool)
        valid[:-2, 3:] = True
        for here, there in pairwise(frames):
            followed = np.pad(there[:, 2:, :-3], ((0, 0), (0, 2), (3, 0)), mode="edge")
            yield here, followed, valid

    clips = [clip(count, 0.05) for count in LENGTHS]
    return Examples(
        clips=clips,
        expected=[np.mean([formula(*pair) for pair in pairs(frames)]) for frames, *_ in clips],
        undefined=clip(1, 0.05),
        better=clip(3, 0),
        worse=clips[0],
    )


def warped_error() -> Examples:
    return panning(squared_error)


def warped_ssim() -> Examples:
    def formula(here: np.ndarray, followed: np.ndarray, valid: np.ndarray) -> float:
        windows = binary_erosion(valid, np.ones((11, 11)), border_value=1)
        return similarity_map(here, followed)[:, windows].mean()

    return panning(formula)


UNCLEAR = np.full((2, 3), np.nan)  # two repeats of three questions, none answered as asked


def answer_success() -> Examples:
    clips = [(np.array(rows, float),) for rows in ([[1, 1], [1, 1]], [[1, 0], [1, 1], [0, 0]], [[1, np.nan], [1, 1]])]
    return Examples(
        clips=clips,
        expected=[1, 1 / 3, 1],
        undefined=(UNCLEAR,),
        better=(np.ones((1, 2)),),
        worse=(np.array([[1.0, 0.0]]),),
    )


def five_acc() -> Examples:
    """Yes/no, choice, union and intersection, averaged, from the answers as FiVE-Bench reads them."""
    rng = random()
    clips = [(rng.integers(0, 2, (count, 3)).astype(float),) for count in LENGTHS]
    expected = []
    for (scores,) in clips:
        of_repeats = []
        for source, target, choice in scores.astype(bool):
            success = source and target
            of_repeats.append(np.mean([success, choice, success or choice, success and choice]))
        expected.append(float(np.mean(of_repeats)))
    return Examples(
        clips=clips,
        expected=expected,
        undefined=(UNCLEAR,),
        better=(np.ones((1, 3)),),
        worse=(np.array([[1.0, 0.0, 1.0]]),),
    )


def answer_grade() -> Examples:
    clips = [(np.array(rows, float),) for rows in ([[5], [4]], [[1], [np.nan]], [[3]])]
    return Examples(
        clips=clips, expected=[4.5, 1, 3], undefined=(UNCLEAR,), better=(np.array([[5.0]]),), worse=(np.array([[2.0]]),)
    )


CASES: dict[type[ClipMean], Callable[[], Examples]] = {
    text.TextAlignment: text_alignment,
    text.FrameAccuracy: frame_accuracy,
    text.DirectionalSimilarity: directional_similarity,
    text.PickScore: pick_score,
    consistency.FrameConsistency: frame_consistency,
    consistency.AllPairsConsistency: all_pairs_consistency,
    consistency.VBenchConsistency: vbench_consistency,
    flickering.TemporalFlickering: temporal_flickering,
    MotionFidelity: motion_fidelity,
    TrackCorrelation: track_correlation,
    DynamicDegree: dynamic_degree,
    MotionSmoothness: motion_smoothness,
    AestheticQuality: aesthetic_quality,
    NIQE: niqe,
    structure.StructureDistance: structure_distance,
    fidelity.MSE: mse,
    fidelity.PSNR: psnr,
    fidelity.SSIM: ssim,
    fidelity.LPIPS: lpips,
    fidelity.MaskIoU: mask_iou,
    warp_error.WarpError: warped_error,
    warp_error.WarpSSIM: warped_ssim,
    answered.AnswerSuccess: answer_success,
    answered.FiveAcc: five_acc,
    answered.AnswerGrade: answer_grade,
}


def test_spread_is_the_deviation_of_what_is_defined() -> None:
    values = torch.tensor([1.0, 4.0, torch.nan, 2.0], dtype=torch.float64)
    assert answered.spread(values).item() == pytest.approx(np.std([1, 4, 2], ddof=1))
    assert answered.spread(values[1:3]).isnan()


Case = tuple[type[ClipMean], Examples]


@pytest.fixture(scope="module", params=CASES, ids=lambda metric: metric.__name__)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param, CASES[request.param]()


def tensors(clip: Clip) -> list[Any]:
    return [torch.from_numpy(part) if isinstance(part, np.ndarray) else part for part in clip]


def fed(kind: type[ClipMean], *clips: Clip) -> ClipMean:
    """A metric that has seen these clips."""
    metric = kind()
    for clip in clips:
        metric.update(*tensors(clip))
    return metric


def test_the_mean_over_clips_is_the_formulas(case: Case) -> None:
    kind, examples = case
    for clip, expected in zip(examples.clips, examples.expected, strict=True):
        assert fed(kind, clip).compute().item() == pytest.approx(expected, rel=examples.close)
    whole = fed(kind, *examples.clips)
    assert whole.compute().item() == pytest.approx(np.mean(examples.expected), rel=examples.close)
    assert (whole.count, whole.undefined) == (len(LENGTHS), 0)


def test_clips_in_parts_are_worth_what_they_are_at_once(case: Case) -> None:
    """Clip by clip with `forward`, or by two metrics that are merged as those of two processes are."""
    kind, examples = case
    at_once = fed(kind, *examples.clips).compute().item()
    forward = kind()
    values = [forward(*tensors(clip)).item() for clip in examples.clips]
    assert values == [fed(kind, clip).compute().item() for clip in examples.clips]
    merged = fed(kind, *examples.clips[2:])
    merged.merge_state(fed(kind, *examples.clips[:2]))
    for together in (np.mean(values), forward.compute().item(), merged.compute().item()):
        assert together == pytest.approx(at_once, rel=1e-12)  # three float64 numbers summed in another order


def test_a_clip_that_says_nothing_is_counted_and_left_out(case: Case) -> None:
    kind, examples = case
    alone = fed(kind, examples.undefined)
    assert alone.compute().isnan()
    assert (alone.count, alone.undefined) == (0, 1)
    between = fed(kind, examples.clips[0], examples.undefined, examples.clips[1])
    assert between.compute() == fed(kind, *examples.clips[:2]).compute()
    assert (between.count, between.undefined) == (2, 1)


def test_the_better_clip_scores_better(case: Case) -> None:
    kind, examples = case
    better, worse = (fed(kind, clip).compute() for clip in (examples.better, examples.worse))
    assert kind.higher_is_better is (better > worse).item()
    assert better != worse


def test_every_family_has_a_class_here_and_a_metric_in_the_suite() -> None:
    families = {
        value
        for found in pkgutil.iter_modules(fatezero_eval.metrics.__path__, "fatezero_eval.metrics.")
        for value in vars(importlib.import_module(found.name)).values()
        if isinstance(value, MetricFamily)
    }
    assert {vars(kind)["family"] for kind in CASES} == families
    assert {metric.family for metric in suite.METRICS} - {None} == families


def test_a_class_is_made_once_and_found_by_its_name() -> None:
    assert fidelity.PSNR is fidelity.PSNR
    assert issubclass(fidelity.PSNR, torchmetrics.Metric)
    assert pickle.loads(pickle.dumps(fidelity.PSNR)) is fidelity.PSNR
    with pytest.raises(AttributeError, match="has no attribute 'SNR'"):
        _ = fidelity.SNR  # type: ignore[attr-defined]


def test_the_suite_points_the_same_way_as_the_class() -> None:
    directions = {metric.name: metric.higher_is_better for metric in suite.METRICS}
    assert directions["psnr/truth"] is True
    assert directions["lpips/outside/pie_compat"] is False
    assert directions["valid_pixels"] is None
