"""torchsde on the same Brownian increments: equal to rounding."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torchsde")
import torch

import flds
import solvers
from solvers import BrownianMotion
from tests.solvers.equations import GEOMETRIC, MU, ORNSTEIN_UHLENBECK, PLANAR_GENERAL, SIGMA, THETA, A, S
from validation.peers import ReplayedBrownian, first_pass, frozen_moments, solve_torchsde

# values of order 1, fifty steps, sums in another order
ROUNDING = 1e-12
STEPS, PARTICLES = 50, 3000
X0 = np.random.default_rng(0).standard_normal((PARTICLES, 2))


@pytest.mark.parametrize("scheme", ["euler_maruyama", "milstein", "heun"])
def test_without_interaction(scheme):
    brownian = BrownianMotion(0.0, 1.0, STEPS, seed=4)
    run = solvers.solve(GEOMETRIC, X0[:, 0], 0.0, 1.0, STEPS, seed=4, scheme=scheme)
    peer = solve_torchsde(lambda t, x: MU * x, lambda t, x: SIGMA * x, X0[:, :1].copy(), brownian, scheme)
    # our Milstein takes the derivative of s by differences, 1e-10 of it in each step
    np.testing.assert_allclose(run.final_particles, peer[:, 0], atol=1e-8 if scheme == "milstein" else ROUNDING)


def test_with_the_mean_frozen():
    brownian = BrownianMotion(0.0, 1.0, STEPS, seed=4)
    run = solvers.solve(ORNSTEIN_UHLENBECK, X0[:, 0], 0.0, 1.0, STEPS, seed=4)
    m = frozen_moments(run)
    peer = solve_torchsde(
        lambda t, x: -A * (x - THETA * m(t)), lambda t, x: S * torch.ones_like(x), X0[:, :1].copy(), brownian
    )
    np.testing.assert_allclose(run.final_particles, peer[:, 0], atol=ROUNDING)


def test_general_noise_in_the_plane_with_the_mean_frozen():
    brownian = BrownianMotion(0.0, 1.0, STEPS, motions=3, seed=4)
    run = solvers.solve(PLANAR_GENERAL, X0, 0.0, 1.0, STEPS, seed=4)
    m = frozen_moments(run)

    def drift(t, x):
        return torch.stack([m(t)[1] - x[:, 0], torch.sin(t) * x[:, 0] - m(t)[0] * x[:, 1]], dim=1)

    def diffusion(t, x):
        one = torch.ones_like(x[:, 0])
        rows = [0.5 * one, x[:, 0], m(t)[0] * one], [0.1 * x[:, 1], 0.2 * one, t * one]
        return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)

    peer = solve_torchsde(drift, diffusion, X0, brownian, noise="general")
    np.testing.assert_allclose(run.final_particles, peer, atol=ROUNDING)


@pytest.mark.parametrize("activation", ["tanh", "relu", "erf"])
def test_forward_and_backward_sde(activation):
    numbers = {"initial_variance": 0.8, "horizon": 1.5, "particles": 3000, "depth": 20, "seed": 6}
    h, g = first_pass(activation, *numbers.values())
    np.testing.assert_allclose(flds.solve_forward(activation, **numbers).final_particles, h, atol=ROUNDING)
    np.testing.assert_allclose(flds.solve_backward(activation, **numbers).final_particles, g, atol=ROUNDING)


def test_increments_between_grid_points_are_refused():
    replayed = ReplayedBrownian(BrownianMotion(0.0, 1.0, 4), 3)
    assert replayed(0.25, 0.5).shape == replayed.shape == (3, 1)
    with pytest.raises(ValueError, match=r"the increment from 0.25 to 0.75 is not one interval of the grid"):
        replayed(0.25, 0.75)
