"""Masked and whole-frame fidelity against scikit-image and the table of masked averages."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from fatezero.errors import UserError
from fatezero_eval.metrics import fidelity

GAUSSIAN = {
    "channel_axis": -1,
    "data_range": 1.0,
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
}


@pytest.fixture(scope="module")
def clips():
    """Three frames, their noisy copies and a rectangle that grows, as numpy F,H,W,3 and F,H,W."""
    rng = np.random.default_rng(0)
    clean = rng.random((3, 40, 52, 3))
    noisy = np.clip(clean + rng.normal(0, 0.1, clean.shape), 0, 1)
    mask = np.zeros((3, 40, 52), dtype=bool)
    for t in range(3):
        mask[t, 5 : 15 + 5 * t, 10:30] = True
    return clean, noisy, mask


def tensors(clean, noisy, mask):
    return (
        *(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))) for x in (clean, noisy)),
        torch.from_numpy(mask),
    )


def test_whole_frames_agree_with_scikit_image(clips):
    a, b, _ = tensors(*clips)
    everywhere = fidelity.everywhere(a)
    pairs = list(zip(clips[0], clips[1], strict=True))
    np.testing.assert_allclose(fidelity.mse(a, b, everywhere), [mean_squared_error(*p) for p in pairs], atol=1e-12)
    expected = [peak_signal_noise_ratio(*p, data_range=1) for p in pairs]
    np.testing.assert_allclose(fidelity.psnr(a, b, everywhere), expected, atol=1e-9)
    expected = [structural_similarity(*p, **GAUSSIAN) for p in pairs]
    np.testing.assert_allclose(fidelity.ssim(a, b, everywhere), expected, atol=1e-9)


def test_masked_values_look_at_masked_pixels_alone(clips):
    clean, noisy, mask = clips
    a, b, inside = tensors(*clips)
    expected = [((x - y)[m] ** 2).mean() for x, y, m in zip(clean, noisy, mask, strict=True)]
    np.testing.assert_allclose(fidelity.mse(a, b, inside), expected, atol=1e-12)
    np.testing.assert_allclose(fidelity.psnr(a, b, inside), 10 * np.log10(1 / np.array(expected)), atol=1e-9)
    maps = [structural_similarity(x, y, full=True, **GAUSSIAN)[1] for x, y in zip(clean, noisy, strict=True)]
    expected = [s[m].mean() for s, m in zip(maps, mask, strict=True)]
    np.testing.assert_allclose(fidelity.ssim(a, b, inside), expected, atol=1e-9)


def test_pie_counts_zeroed_pixels(clips):
    clean, noisy, mask = clips
    a, b, inside = tensors(*clips)
    zeroed = [(x * m[..., None], y * m[..., None]) for x, y, m in zip(clean, noisy, mask, strict=True)]
    np.testing.assert_allclose(
        fidelity.mse_pie(a, b, inside, inside), [mean_squared_error(*p) for p in zeroed], atol=1e-12
    )
    expected = [peak_signal_noise_ratio(*p, data_range=1) for p in zeroed]
    np.testing.assert_allclose(fidelity.psnr_pie(a, b, inside, inside), expected, atol=1e-9)
    mirrored = [[np.pad(x, ((5, 5), (5, 5), (0, 0)), mode="reflect") for x in p] for p in zeroed]
    maps = [structural_similarity(*p, full=True, **GAUSSIAN)[1] for p in mirrored]
    expected = [s[5:-5, 5:-5].mean() for s in maps]
    ours = fidelity.ssim_pie(a, b, inside, inside)
    np.testing.assert_allclose(ours, expected, atol=1e-9)
    shown = fidelity.masked(a, inside).double(), fidelity.masked(b, inside).double()
    theirs = structural_similarity_index_measure(*shown, data_range=1.0, reduction="none")
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize(("edited", "pie"), [(0.1, 26.5), (0.5, 29.0), (0.9, 36.0)])
def test_the_same_background_error_prints_more_decibels_the_larger_the_mask(edited, pie):
    error = 10 ** (-26.0 / 20)
    source = torch.full((1, 3, 100, 100), 0.5, dtype=torch.float64)
    outside = torch.zeros(1, 100, 100, dtype=torch.bool)
    outside[:, :, int(100 * edited) :] = True
    assert fidelity.psnr(source, source + error, outside) == pytest.approx(26.0, abs=1e-9)
    assert fidelity.psnr_pie(source, source + error, outside, outside) == pytest.approx(pie, abs=0.05)


def test_equal_frames_reach_the_ceiling_and_an_empty_mask_is_undefined():
    frames = torch.rand(2, 3, 16, 16)
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[1, 4:9] = True
    assert fidelity.psnr(frames, frames, fidelity.everywhere(frames)).tolist() == [100, 100]
    for function in (fidelity.mse, fidelity.psnr, fidelity.ssim):
        assert function(frames, frames, mask).isnan().tolist() == [True, False]
    everywhere = fidelity.everywhere(frames)
    for function in (fidelity.mse_pie, fidelity.ssim_pie):
        assert function(frames, frames, mask, everywhere).isnan().tolist() == [True, False]
        assert function(frames, frames, everywhere, mask).isnan().tolist() == [True, False]
    assert fidelity.PSNR.of_clip(frames, frames, mask) == 100


def test_ssim_of_frames_smaller_than_its_window_is_refused():
    tiny = torch.zeros(1, 3, 10, 40)
    with pytest.raises(UserError, match="11x11"):
        fidelity.ssim(tiny, tiny, fidelity.everywhere(tiny))


def test_mask_iou():
    a = torch.zeros(3, 8, 8, dtype=torch.bool)
    b = a.clone()
    a[0, :4], b[0, 2:6] = True, True
    a[1, :4], b[1, :4] = True, True
    values = fidelity.mask_iou(a, b)
    assert values[:2].tolist() == [pytest.approx(1 / 3), 1]
    assert math.isnan(values[2])


def test_lpips_averages_its_map_and_pie_the_zeroed_frames():
    a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[:, 3:9, 4:11] = True

    class Distance:
        def of_pixels(self, x, y):
            return (x - y).abs().sum(0)

        def of_frame(self, x, y):
            return self.of_pixels(x, y).mean()

    expected = [(x - y).abs().sum(0)[m].mean() for x, y, m in zip(a, b, mask, strict=True)]
    np.testing.assert_allclose(fidelity.lpips(a, b, mask, Distance()), expected, rtol=1e-6)
    expected = [((x - y).abs().sum(0) * m).mean() for x, y, m in zip(a, b, mask, strict=True)]
    np.testing.assert_allclose(fidelity.lpips_pie(a, b, mask, mask, Distance()), expected, rtol=1e-6)
