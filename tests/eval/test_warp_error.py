"""Warp error and WarpSSIM against float64 numpy transcriptions of the released code, and known answers."""

import numpy as np
import pytest
import torch
from numpy.linalg import norm
from scipy.ndimage import binary_erosion
from skimage.metrics import structural_similarity

from fatezero_eval.metrics import warp_error, warping


def bilinear(image, x, y, outside):
    """Sample H,W,C at real coordinates: Resample2d's clamped corners, or zeros beyond the frame."""
    height, width = image.shape[:2]
    result = np.zeros((*x.shape, image.shape[2]))
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            xi, yi = x0 + dx, y0 + dy
            weight = (1 - np.abs(x - xi)) * (1 - np.abs(y - yi))
            if outside == "zeros":
                weight = weight * ((xi >= 0) & (xi < width) & (yi >= 0) & (yi < height))
            result += weight[..., None] * image[np.clip(yi, 0, height - 1), np.clip(xi, 0, width - 1)]
    return result


def grid(flow):
    height, width = flow.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    return columns + flow[..., 0], rows + flow[..., 1]


def lai_occlusion(forward, backward):
    """evaluate: |F̂_bw + F_fw|² > .01(…) + .5 or |∇u|² + |∇v|² > .01|F|² + .002, written from the paper."""
    returned = bilinear(backward, *grid(forward), "border")

    def squared(v):
        return (v**2).sum(-1)

    mismatch = squared(returned + forward) > 0.01 * (squared(returned) + squared(forward)) + 0.5
    gradient = np.zeros(forward.shape[:2])
    gradient[:, :-1] += squared(np.diff(forward, axis=1))
    gradient[:-1, :] += squared(np.diff(forward, axis=0))
    return mismatch | (gradient > 0.01 * squared(forward) + 0.002)


def reference_errors(frames, forward, backward):
    rows = {"default": [], "lai2018": [], "rerender": [], "wrong_way": [], "rave": []}
    for t in range(len(forward)):
        here, there, f, b = frames[t], frames[t + 1], forward[t], backward[t]
        x, y = grid(f)
        height, width = x.shape
        squared = (bilinear(there, x, y, "border") - here) ** 2
        open_ = ~lai_occlusion(f, b)
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        rows["lai2018"].append((squared * open_[..., None]).sum() / (3 * open_.sum()))
        valid = open_ & inside
        rows["default"].append((squared * valid[..., None]).sum() / (3 * valid.sum()))
        returned = bilinear(f, *grid(b), "zeros")
        limit = 0.01 * (norm(b, axis=-1) + norm(f, axis=-1)) + 0.5
        keep = norm(b + returned, axis=-1) <= limit
        moved = bilinear(here, *grid(b), "zeros")
        rows["rerender"].append((((moved - there) ** 2) * keep[..., None]).mean())
        rows["wrong_way"].append(((bilinear(here, x, y, "zeros") - there) ** 2).mean())
        drawn = np.round(bilinear(here * 255, x, y, "zeros"))
        eight_bit = np.round(there * 255).astype(np.uint8)
        rows["rave"].append(structural_similarity(eight_bit, drawn.astype(np.uint8), channel_axis=2))
    return rows


def smooth_noise(rng, *shape):
    coarse = torch.from_numpy(rng.random((1, shape[-1], shape[0] // 8, shape[1] // 8)))
    fine = torch.nn.functional.interpolate(coarse, size=shape[:2], mode="bicubic", align_corners=True)
    return fine[0].permute(1, 2, 0).clamp(0, 1).numpy()


@pytest.fixture(scope="module")
def moving():
    """Four textured 8-bit frames and flows of a few pixels that lead partly out of the frame, as numpy."""
    rng = np.random.default_rng(3)
    frames = np.stack([np.round(smooth_noise(rng, 48, 64, 3) * 255) / 255 for _ in range(4)])
    forward = np.stack([[3.5, -2.5] + 2.5 * (smooth_noise(rng, 48, 64, 2) - 0.5) for _ in range(3)])
    backward = np.stack([-f + 0.8 * (smooth_noise(rng, 48, 64, 2) - 0.5) for f in forward])
    return frames, forward, backward


def tensors(*arrays):
    return [torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2))) for array in arrays]


def default_of_pairs(frames, forward, backward):
    return warp_error.default_of_pairs(
        frames, warp_error.followed_of_pairs(frames, forward), warp_error.valid_pixels(forward, backward)
    )


def warp_ssim_of_pairs(frames, forward, backward):
    return warp_error.warp_ssim_of_pairs(
        frames, warp_error.followed_of_pairs(frames, forward), warp_error.valid_pixels(forward, backward)
    )


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("default", default_of_pairs),
        ("lai2018", warp_error.lai2018_of_pairs),
        ("rerender", warp_error.rerender_of_pairs),
        ("wrong_way", lambda frames, forward, _: warp_error.wrong_way_of_pairs(frames, forward)),
    ],
)
def test_agrees_with_the_formula(moving, name, function):
    expected = reference_errors(*moving)[name]
    assert min(expected) > 1e-4
    np.testing.assert_allclose(function(*tensors(*moving)), expected, rtol=0, atol=1e-12)


def test_evalcrafter_is_three_times_lai(moving):
    expected = 3 * np.array(reference_errors(*moving)["lai2018"])
    np.testing.assert_allclose(warp_error.evalcrafter_of_pairs(*tensors(*moving)), expected, atol=1e-12)


def test_rave_agrees_with_scikit_image(moving):
    frames, forward, _ = moving
    values = warp_error.rave_of_pairs(*tensors(frames, forward))
    # OpenCV interpolates with weights of 1/32, so its 8-bit pixels differ by a few levels
    np.testing.assert_allclose(values, reference_errors(*moving)["rave"], atol=5e-3)


def test_occlusion_agrees_with_the_formula(moving):
    _, forward, backward = moving
    masks = [warping.occluded(f, b).numpy() for f, b in zip(*tensors(forward, backward), strict=True)]
    expected = [lai_occlusion(f, b) for f, b in zip(forward, backward, strict=True)]
    assert 0.05 < np.mean(expected) < 0.95
    np.testing.assert_array_equal(masks, expected)


def test_warp_ssim_is_scikit_images_map_over_valid_windows(moving):
    frames, forward, backward = moving
    values = []
    for here, there, f, b in zip(frames[:-1], frames[1:], forward, backward, strict=True):
        x, y = grid(f)
        valid = ~lai_occlusion(f, b) & (x >= 0) & (x <= 63) & (y >= 0) & (y <= 47)
        _, full = structural_similarity(
            here,
            bilinear(there, x, y, "border"),
            full=True,
            channel_axis=-1,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        values.append(full[binary_erosion(valid, np.ones((11, 11)), border_value=1)].mean())
    np.testing.assert_allclose(warp_ssim_of_pairs(*tensors(*moving)), values, atol=1e-9)


@pytest.fixture(scope="module")
def translation():
    """A panning camera: whole-pixel motion of (3, -2) with its true flows, exactly consistent."""
    canvas = torch.from_numpy(smooth_noise(np.random.default_rng(5), 80, 96, 3)).permute(2, 0, 1)
    frames = torch.stack([canvas[:, 16 + 2 * t : 64 + 2 * t, 20 - 3 * t : 84 - 3 * t] for t in range(5)])
    forward = torch.tensor([3.0, -2.0])[:, None, None].expand(4, 2, 48, 64)
    return frames, forward, -forward


def test_true_flow_of_a_translation_leaves_no_error(translation):
    frames, forward, backward = translation
    assert warp_error.warp_error(frames, forward, backward) == 0
    assert warp_error.warp_ssim(frames, forward, backward) == pytest.approx(1)
    assert warp_error.lai2018_of_pairs(frames, forward, backward).mean() > 1e-5  # the released code leaks


def test_warping_the_wrong_way_is_worse_than_not_warping(translation):
    frames, forward, backward = translation
    still = torch.zeros_like(forward)
    unwarped = warp_error.warp_error(frames, still, still)
    assert warp_error.warp_error(frames, backward, forward) > unwarped
    assert warp_error.wrong_way_of_pairs(frames, forward).mean() > unwarped


def test_identical_frames_have_no_error():
    frames = torch.rand(1, 3, 32, 32, dtype=torch.float64).expand(4, 3, 32, 32)
    still = torch.zeros(3, 2, 32, 32)
    assert warp_error.warp_error(frames, still, still) == 0
    assert (warp_error.rerender_of_pairs(frames, still, still) == 0).all()


def test_brightness_flicker_costs_twice_its_variance():
    generator = torch.Generator().manual_seed(0)
    sigma = 0.02
    offsets = torch.randn(600, generator=generator, dtype=torch.float64) * sigma
    frames = 0.5 + offsets[:, None, None, None].expand(-1, 3, 12, 12)
    still = torch.zeros(1, 2, 12, 12).expand(599, 2, 12, 12)
    assert warp_error.warp_error(frames, still, still) == pytest.approx(2 * sigma**2, rel=0.15)


def test_shuffled_frames_are_worse(translation):
    frames, forward, backward = translation
    shuffled = frames[[2, 0, 3, 1, 4]]
    assert warp_error.warp_error(shuffled, forward, backward) > 1e-3
    assert warp_error.warp_ssim(shuffled, forward, backward) < 0.9


def test_one_frame_is_undefined_and_a_wholly_occluded_pair_is_left_out(translation):
    frames, forward, backward = translation
    assert warp_error.warp_error(frames[:1], forward[:0], backward[:0]).isnan()
    contradicted = backward.clone()
    contradicted[1] = forward[1] * 10
    values = default_of_pairs(frames, forward, contradicted)
    assert values.isnan().tolist() == [False, True, False, False]
    assert warp_error.lai2018_of_pairs(frames, forward, contradicted)[1] == 0  # as released


def test_frames_that_are_not_numbers_are_left_out(translation):
    frames, forward, backward = translation
    damaged = frames.clone()
    damaged[1, 0, 20, 20] = torch.nan
    assert default_of_pairs(damaged, forward, backward).isnan().tolist() == [True, True, False, False]
    assert warp_error.warp_error(damaged, forward, backward) == 0


def test_a_value_does_not_depend_on_its_batch(moving):
    frames, forward, backward = tensors(*moving)
    for function in (
        default_of_pairs,
        warp_ssim_of_pairs,
        warp_error.rerender_of_pairs,
    ):
        whole = function(frames, forward, backward)
        halves = [
            function(frames[:3], forward[:2], backward[:2]),
            function(frames[2:], forward[2:], backward[2:]),
        ]
        assert torch.equal(whole, torch.cat(halves))


def test_torchmetrics_state_averages_clips(moving, translation):
    metric = warp_error.WarpError()
    metric.update(*tensors(*moving))
    metric.update(*translation)
    metric.update(translation[0][:1], translation[1][:0], translation[2][:0])
    expected = (np.mean(reference_errors(*moving)["default"]) + 0) / 2
    assert metric.compute() == pytest.approx(expected, abs=1e-12)
    assert metric.undefined == 1
