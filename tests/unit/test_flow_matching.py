"""Moves along straight lines, against paths that are known and diffusers' own schedulers."""

from __future__ import annotations

from math import exp
from typing import Any, Literal

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from torch.testing import assert_close

from fatezero.diffusion.flow_matching import FlowSolver, FlowStep, noised, placed_steps
from fatezero.errors import UserError
from tests.tiny_pipelines import flow_euler, flow_unipc


def even_steps(count: int) -> list[FlowStep]:
    """Clean to noisy."""
    return [FlowStep(1000 * (i + 1) / count, i / count, (i + 1) / count) for i in range(count)]


def walked(order: Literal[1, 2], count: int, velocity: Any, start: Tensor) -> Tensor:
    """From noise to clean, by a velocity of latents and timestep."""
    solver, x = FlowSolver(order), start
    for step in reversed(even_steps(count)):
        asked, told = solver.asked_to_denoise(x, step)
        x = solver.denoise(x, velocity(asked, told), step)
    return x


@pytest.mark.parametrize("order", [1, 2])
def test_a_straight_line_is_walked_exactly_both_ways(order: Literal[1, 2]) -> None:
    clean, noise = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 3.0]).double()
    assert_close(walked(order, 3, lambda *_: noise - clean, noise), clean)
    solver, x = FlowSolver(order), clean
    for step in even_steps(3):
        solver.asked_to_invert(x, step)
        x = solver.invert(x, noise - clean, step)
        assert_close(x, noised(clean, noise, step.sigma_noisy))
        assert_close(x, step.noised(clean, noise))


def test_the_second_order_converges_quadratically_and_the_first_linearly() -> None:
    """Of dx/dσ = x - 2σ, whose path from σ = 1 to 0 is known: x = 2σ + 2 + c exp(σ)."""

    def velocity(x: Tensor, timestep: float) -> Tensor:
        return x - 2 * timestep / 1000

    start = torch.tensor([1.0]).double()
    expected = 2 + (1 - 4) / exp(1)

    def error(order: Literal[1, 2], count: int) -> float:
        return abs(walked(order, count, velocity, start).item() - expected)

    assert 1.8 < error(1, 20) / error(1, 40) < 2.2
    assert 3.5 < error(2, 20) / error(2, 40) < 4.5
    assert error(2, 20) < error(1, 20) / 10


def test_both_directions_ask_at_one_timestep() -> None:
    step = FlowStep(900, 0.7, 0.9)
    x, velocity = torch.zeros(2).double(), torch.ones(2).double()
    for order, told in ((1, 900), (2, 800)):
        back, forth = FlowSolver(order), FlowSolver(order)
        assert back.asked_to_denoise(x, step)[1] == pytest.approx(told)
        assert forth.asked_to_invert(x, step)[1] == pytest.approx(told)
        assert back.asks_midway == (order == 2)
        back.denoise(x, velocity, step)
        forth.invert(x, velocity, step)
        reached = 0.0 if order == 1 else 0.1  # half of the move, by the velocity of the move before
        assert_close(back.asked_to_denoise(x, step)[0], x - reached)
        assert_close(forth.asked_to_invert(x, step)[0], x + reached)


@pytest.mark.parametrize(
    ("scheduler", "where"),
    [
        (flow_euler(), {"num_inference_steps": 7}),
        (flow_unipc(flow_shift=5.0), {"num_inference_steps": 7}),
        (
            flow_euler(shift=1.0, use_dynamic_shifting=True, shift_terminal=0.1),
            {"sigmas": np.linspace(1, 1 / 7, 7).tolist(), "mu": 1.3},
        ),
    ],
)
def test_steps_are_placed_as_by_diffusers(scheduler: Any, where: dict[str, Any]) -> None:
    steps = placed_steps(scheduler, **where)
    again = type(scheduler).from_config(scheduler.config)
    again.set_timesteps(**where)
    assert [step.timestep for step in reversed(steps)] == again.timesteps.tolist()
    assert [step.sigma_noisy for step in reversed(steps)] == again.sigmas.tolist()[:-1]
    assert [step.sigma_clean for step in reversed(steps)] == again.sigmas.tolist()[1:]
    assert steps[0].sigma_clean == 0


def test_eulers_moves_are_diffusers() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    steps, x = (
        placed_steps(scheduler, num_inference_steps=4),
        torch.randn(5, generator=torch.Generator().manual_seed(0)),
    )
    solver, expected = FlowSolver(1), x
    for step in reversed(steps):
        velocity = torch.sin(3 * x)
        assert_close(x, expected, atol=1e-6, rtol=0)
        expected = scheduler.step(torch.sin(3 * expected), step.timestep, expected).prev_sample
        x = solver.denoise(x, velocity, step)


def test_levels_that_do_not_fall_are_refused() -> None:
    with pytest.raises(UserError, match="levels that do not fall from 1 to 0"):
        placed_steps(flow_euler(), sigmas=[0.5, 0.5, 0.2])
    with pytest.raises(UserError, match="places no steps"):
        placed_steps(flow_euler(use_dynamic_shifting=True), num_inference_steps=3)  # a shift is missing
