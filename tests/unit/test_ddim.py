"""DDIM moves, against diffusers' schedulers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, LMSDiscreteScheduler
from torch import Tensor

from fatezero.diffusion.ddim import DDIMSolver, PredictionType, move, schedule


def config(**changes: Any) -> dict[str, Any]:
    stable_diffusion = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "clip_sample": False,
        "set_alpha_to_one": False,
    }
    return dict(DDIMScheduler(**(stable_diffusion | changes)).config)


def test_fifty_steps_of_stable_diffusion() -> None:
    steps = schedule(config(), 50)
    assert [step.timestep for step in steps][:3] == [1, 21, 41]
    assert steps[-1].timestep == 981
    assert steps[0].alpha_clean == pytest.approx(1 - 0.00085)  # the final alpha is that of timestep 0
    for cleaner, noisier in pairwise(steps):
        assert cleaner.alpha_noisy == noisier.alpha_clean


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("changes", [{}, {"timestep_spacing": "trailing"}, {"set_alpha_to_one": True}])
def test_denoising_moves_equal_diffusers(prediction_type: Any, changes: dict[str, Any]) -> None:
    settings = config(prediction_type=prediction_type, **changes)
    scheduler = DDIMScheduler.from_config(settings)
    scheduler.set_timesteps(10)
    x, output = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for step in reversed(schedule(settings, 10)):
        ours = move(x, output, step.alpha_noisy, step.alpha_clean, prediction_type)
        torch.testing.assert_close(ours, scheduler.step(output, step.timestep, x).prev_sample, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_inversion_moves_equal_diffusers(prediction_type: Any) -> None:
    settings = config(prediction_type=prediction_type)
    scheduler = DDIMInverseScheduler.from_config(settings)
    scheduler.set_timesteps(10)
    x, output = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for step in schedule(settings, 10)[1:]:  # diffusers starts from alpha 1, the original from the final alpha
        ours = move(x, output, step.alpha_clean, step.alpha_noisy, prediction_type)
        torch.testing.assert_close(ours, scheduler.step(output, step.timestep, x).prev_sample, rtol=1e-6, atol=1e-6)


def test_a_move_and_its_inverse_cancel() -> None:
    x, noise = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(move(move(x, noise, 0.9, 0.2), noise, 0.2, 0.9), x)


def gaussian_noise(x: Tensor, alpha: float) -> Tensor:
    """What a perfect network predicts at a level for data that is normal, of variance 1/4 and mean 1."""
    return (1 - alpha) ** 0.5 * (x - alpha**0.5) / (alpha / 4 + 1 - alpha)


def gaussian_path(alpha: float) -> float:
    """Where one data point, 1.5, is at a level: the ODE's solution, at the quantile where it began."""
    return float(alpha**0.5 + (alpha / 4 + 1 - alpha) ** 0.5)


def network(x: Tensor, alpha_latents: float, alpha_told: float, prediction_type: PredictionType) -> Tensor:
    """Predicts the noise of the level that it is told, or the v that says the same at the latents' level."""
    noise = gaussian_noise(x, alpha_told)
    if prediction_type == "epsilon":
        return noise
    signal, sigma = alpha_latents**0.5, (1 - alpha_latents) ** 0.5
    return signal * noise - sigma * (x - sigma * noise) / signal


def edit_error(order: Any, steps: int, prediction_type: PredictionType = "epsilon") -> float:
    solver, walked = DDIMSolver(order, prediction_type), schedule(config(), steps)
    x = torch.tensor(gaussian_path(walked[-1].alpha_noisy), dtype=torch.float64)
    for step in reversed(walked):
        output = network(x, step.alpha_noisy, step.alpha_noisy, prediction_type)
        x = solver.denoise(x, output, step)
    return abs(float(x) - gaussian_path(walked[0].alpha_clean))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("order", [1, 2])
def test_the_order_of_convergence(order: Any, prediction_type: PredictionType) -> None:
    """Half the step, half or a quarter of the error; and at ten steps the second order is the better one."""
    errors = [edit_error(order, steps, prediction_type) for steps in (40, 80, 160)]
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.15)
    assert edit_error(2, 10) < edit_error(1, 10) / 2


@pytest.mark.parametrize("order", [1, 2])
def test_there_and_back_converges(order: Any) -> None:
    """To first order in either: the inversion asks about the cleaner latent at the noisier level's timestep."""
    errors = []
    for steps in (40, 80, 160):
        walked = schedule(config(), steps)
        start = x = torch.tensor(gaussian_path(walked[0].alpha_clean), dtype=torch.float64)
        there, back = DDIMSolver(order, "epsilon"), DDIMSolver(order, "epsilon")
        for step in walked:
            x = there.invert(x, gaussian_noise(x, step.alpha_noisy), step)
        for step in reversed(walked):
            x = back.denoise(x, gaussian_noise(x, step.alpha_noisy), step)
        errors.append(abs(float(x - start)))
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2, rel=0.15)


def test_the_second_order_is_that_of_diffusers_multistep_over_sigma() -> None:
    """LMSDiscreteScheduler integrates the same line numerically; it walks x / signal."""
    settings = config(set_alpha_to_one=True)
    theirs, ours = LMSDiscreteScheduler.from_config(settings, timestep_spacing="leading"), DDIMSolver(2, "epsilon")
    theirs.set_timesteps(10)
    theirs.is_scale_input_called = True  # what that method does, the network here does
    walked = schedule(settings, 10)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    y = x / walked[-1].alpha_noisy ** 0.5
    for t, step in zip(theirs.timesteps, reversed(walked), strict=True):
        x = ours.denoise(x, gaussian_noise(x, step.alpha_noisy), step)
        y = theirs.step(gaussian_noise(y * step.alpha_noisy**0.5, step.alpha_noisy), t, y, order=2).prev_sample
        torch.testing.assert_close(x / step.alpha_clean**0.5, y, rtol=1e-5, atol=1e-5)


def test_an_inversion_of_second_order_takes_the_mean_of_two_predictions() -> None:
    x, first, second = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solver, steps = DDIMSolver(2, "epsilon"), schedule(config(), 10)
    once = move(x, first, steps[0].alpha_clean, steps[0].alpha_noisy)
    assert torch.equal(solver.invert(x, first, steps[0]), once)
    expected = move(once, (first + second) / 2, steps[1].alpha_clean, steps[1].alpha_noisy)
    torch.testing.assert_close(solver.invert(once, second, steps[1]), expected, rtol=1e-6, atol=1e-6)


def test_the_second_order_walks_to_pure_noise_and_back() -> None:
    settings = config(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    steps = schedule(settings, 8)
    assert steps[-1].alpha_noisy == 0
    x = start = torch.tensor([0.5, 1.5], dtype=torch.float64)
    there, back = DDIMSolver(2, "v_prediction"), DDIMSolver(2, "v_prediction")
    v = torch.tensor([0.3, -0.2], dtype=torch.float64)  # of constant clean and noise, along which every order is exact
    for step in steps:
        x = there.invert(x, v, step)
    for step in reversed(steps):
        x = back.denoise(x, v, step)
    assert x.isfinite().all()
    assert (x - start).abs().max() < 1


def test_two_predictions_at_one_level_make_no_line() -> None:
    """A schedule may stand still: there the second order is the first."""
    noisier, noisiest = schedule(config(trained_betas=[1e-4] * 500 + [0.0] * 500), 8)[-2:]
    assert noisier.alpha_noisy == noisiest.alpha_noisy < 1
    ends = []
    for order in (1, 2):
        solver, x = DDIMSolver(order, "epsilon"), torch.tensor([0.5, 1.5])
        for step, output in ((noisiest, 0.3), (noisier, -0.2)):
            x = solver.denoise(x, torch.full((2,), output), step)
        ends.append(x)
    assert torch.equal(*ends)
