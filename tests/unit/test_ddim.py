"""DDIM moves, against diffusers' schedulers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from fatezero.diffusion.ddim import move, schedule


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
