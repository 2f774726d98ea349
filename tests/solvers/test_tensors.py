"""Equations on tensors of torch: the particles of `solve`, and derivatives by parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from numba import njit

import solvers
from solvers import McKeanVlasov

torch = pytest.importorskip("torch")

X0 = np.random.default_rng(0).standard_normal(3000)
PLANE = np.random.default_rng(1).standard_normal((2500, 2))


class Parameters(NamedTuple):
    rate: Any
    noise: Any


def linear(**rest):
    given = {
        "drift": lambda t, x, m, args: -args.rate * (x - 0.5 * m),
        "diffusion": lambda t, x, m, args: args.noise,
        "moments": lambda t, x: x,
    }
    return McKeanVlasov(**given | rest, noise="additive", vectorized=True)


EQUATIONS = {
    "additive": (linear(), X0, {"args": Parameters(0.7, 0.3)}),
    "diagonal, vectors": (
        McKeanVlasov(
            drift=lambda t, x, m: m[:2, None] - x + t,
            diffusion=lambda t, x, m: 0.3 * x,
            moments=lambda t, x: x,
            vectorized=True,
        ),
        PLANE,
        {},
    ),
    "stages": (
        McKeanVlasov(
            drift=lambda t, x, m: m[1] * (m[0] - x),
            moments=(lambda t, x: x, lambda t, x, m: abs(x - m)),
            vectorized=True,
        ),
        X0,
        {},
    ),
    "pairs and a field": (
        McKeanVlasov(
            interaction=lambda x, y, field: field * (y - x) / (1 + (y - x) ** 2),
            diffusion=lambda t, x, m: 0.5,
            noise="additive",
            vectorized=True,
        ),
        X0[:400],
        {"field": 1.5},
    ),
}


@pytest.mark.parametrize("name", EQUATIONS)
@pytest.mark.parametrize("times", [(0.0, 1.0, 8), (1.0, 0.0, 8)], ids=["forward", "backward"])
def test_particles_are_those_of_solve(name, times):
    equation, x0, rest = EQUATIONS[name]
    run = solvers.solve_tensors(equation, x0, *times, save_at=[0.5, times[1]], seed=3, noise_steps=16, **rest)
    other = solvers.solve(
        equation, x0, *times, save_at=[0.5, times[1]], save="particles", seed=3, noise_steps=16, **rest
    )
    np.testing.assert_allclose(run.particles.numpy(), other.particles, rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.final_particles.numpy(), other.final_particles, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(run.times, [0.5, times[1]])
    if equation.moments is not None:
        np.testing.assert_allclose(run.moments.numpy(), other.moments, rtol=0, atol=1e-12)


def test_float32_is_float64_rounded():
    equation, x0, rest = EQUATIONS["additive"]
    single, double = (solvers.solve_tensors(equation, x0, 0.0, 1.0, 8, dtype=d, **rest) for d in ("float32", "float64"))
    assert single.final_particles.dtype == torch.float32
    # eight steps, each of a few roundings of numbers below 8
    assert (single.final_particles - double.final_particles).abs().max() < 8 * 5 * 8 * 2.0**-24


def test_tensors_of_another_type_come_in_that_of_the_run():
    equation = McKeanVlasov(drift=lambda t, x, m, args: -args * x, vectorized=True)
    run = solvers.solve_tensors(
        equation, X0[:50], 0.0, 1.0, 4, args=torch.ones(1, dtype=torch.float64), dtype="float32"
    )
    assert run.final_particles.dtype == torch.float32
    assert run.moments.shape == (1, 0)


def test_constants_tuples_and_columns_are_values():
    plane = McKeanVlasov(
        drift=lambda t, x, m: (x[1], -x[0]),
        diffusion=lambda t, x, m: np.array([[0.3], [0.1]]),
        interaction=lambda x, y: 1.0,
        noise="additive",
        vectorized=True,
    )
    run = solvers.solve_tensors(plane, PLANE[:40], 0.0, 1.0, 4)
    other = McKeanVlasov(
        drift=lambda t, x, m: np.stack([x[1], -x[0]]) + 1.0,
        diffusion=lambda t, x, m: np.array([[0.3], [0.1]]),
        noise="additive",
        vectorized=True,
    )
    expected = solvers.solve(other, PLANE[:40], 0.0, 1.0, 4).final_particles
    np.testing.assert_allclose(run.final_particles.numpy(), expected, rtol=0, atol=1e-12)


def objective(rate, noise, weight=False):
    args = Parameters(rate, noise)
    run = solvers.solve_tensors(linear(), X0[:500], 0.0, 1.0, 20, args=args)
    return (run.final_particles**2).mean()


def test_derivatives_are_those_of_differences_on_the_same_paths():
    values = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.7, 0.3)]
    found = torch.autograd.grad(objective(*values), values)
    step = 1e-6
    for place in range(2):
        moved = [[0.7, 0.3], [0.7, 0.3]]
        moved[0][place] += step
        moved[1][place] -= step
        above, below = (objective(*(torch.tensor(one, dtype=torch.float64) for one in pair)) for pair in moved)
        # differences of this step err by its square and by rounding over it
        assert found[place].item() == pytest.approx((above - below).item() / (2 * step), rel=1e-6)


def test_a_derivative_has_its_closed_form():
    """dX = −a (X − θ m) dt by Euler without noise: the mean after K steps is (1 − a (1 − θ) dt)^K."""
    a = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    equation = McKeanVlasov(drift=lambda t, x, m, args: -args * (x - 0.5 * m), moments=lambda t, x: x, vectorized=True)
    run = solvers.solve_tensors(equation, np.ones(50), 0.0, 1.0, 10, args=a)
    run.final_particles.mean().backward()
    assert a.grad.item() == pytest.approx(-0.05 * 10 * (1 - 0.04) ** 9, rel=1e-12)


def test_a_start_and_a_network_of_torch_have_derivatives():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    equation = McKeanVlasov(drift=lambda t, x, m: network(x.T).T, vectorized=True)
    start = torch.tensor(PLANE[:20], requires_grad=True)
    solvers.solve_tensors(equation, start, 0.0, 1.0, 5).final_particles.square().sum().backward()
    assert start.grad.abs().min() > 0
    assert all(one.grad.abs().max() > 0 for one in network.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason=f"torch {torch.__version__} finds no CUDA device")
def test_a_card_follows_the_same_paths():
    equation, x0, rest = EQUATIONS["additive"]
    card, here = (solvers.solve_tensors(equation, x0, 0.0, 1.0, 8, device=d, **rest) for d in ("cuda", "cpu"))
    torch.testing.assert_close(card.final_particles.cpu(), here.final_particles, rtol=0, atol=1e-10)


still = McKeanVlasov(drift=lambda t, x, m: 0.0 * x, vectorized=True)


def faulty(**given):
    return solved(McKeanVlasov(**{"drift": lambda t, x, m: 0.0 * x} | given, vectorized=True))


def solved(equation=still, x0=X0[:10], **rest):
    return solvers.solve_tensors(equation, x0, 0.0, 1.0, 4, **rest)


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (lambda: solved(3), TypeError, "^equation must be a solvers.McKeanVlasov, got int$"),
        (
            lambda: solved(McKeanVlasov(drift=njit(lambda t, x, m: -x))),
            ValueError,
            "^tensors need an equation with vectorized=True",
        ),
        (
            lambda: solved(McKeanVlasov(drift=lambda t, x, m: x, common=lambda t, x, m: 1.0, vectorized=True)),
            ValueError,
            "^tensors have no common noise",
        ),
        (
            lambda: solved(McKeanVlasov(interaction=solvers.Pairs(lambda x, y: y), vectorized=True)),
            ValueError,
            "^tensors have no Pairs",
        ),
        (
            lambda: solved(
                McKeanVlasov(drift=lambda t, x, m: x, moments=solvers.Largest(lambda t, x: x), vectorized=True)
            ),
            ValueError,
            "^tensors have no Largest",
        ),
        (
            lambda: solved(McKeanVlasov(moments=lambda t, x: x, noise="mean_field", vectorized=True)),
            ValueError,
            '^tensors need noise="additive" or "diagonal"',
        ),
        (lambda: faulty(drift=lambda t, x, m: x.mul_(-1.0)), ValueError, "^drift writes into its argument x"),
        (
            lambda: faulty(drift=lambda t, x, m: x.mean() - x),
            ValueError,
            "^drift gives a particle another value",
        ),
        (lambda: faulty(moments=lambda t, x: (x * x).mean()), ValueError, "^moments gives a particle another value"),
        (
            lambda: faulty(moments=lambda t, x: torch.stack([x, x * x], -1)),
            ValueError,
            r"^moments must return \(10,\) or \(M, 10\) numbers, got \(10, 2\)$",
        ),
        (
            lambda: faulty(diffusion=lambda t, x, m: 0.3 * abs(x), noise="additive"),
            ValueError,
            "^diffusion depends on x",
        ),
        (lambda: faulty(interaction=lambda x, y: y - x.mean()), ValueError, "^interaction gives a particle another"),
        (lambda: faulty(interaction=lambda x, y: y.upper()), TypeError, "^interaction failed"),
        (lambda: faulty(drift=lambda t, x, m: "much"), (TypeError, ValueError), "^drift must return numbers"),
        (
            lambda: solved(linear(), args=Parameters(torch.ones(()), "loud")),
            (TypeError, ValueError),
            "^args must be ",
        ),
        (lambda: solved(dtype="float16"), ValueError, "^dtype must be "),
        (lambda: solved(device="tpu"), ValueError, "^device must be "),
        (lambda: solved(x0=torch.ones(2, 2, 2)), ValueError, r"^x0 must have shape \(N,\) for numbers or"),
        (lambda: solved(save_at=[0.3]), ValueError, "^save_at must hold times of the grid of 4 steps with tensors"),
        (lambda: solved(args=1.0), TypeError, "^args was given, but no coefficient takes it"),
        (lambda: solved(field=1.0), TypeError, "^field was given, but no coefficient takes it"),
        (
            lambda: solved(McKeanVlasov(drift=lambda t, x, m, args: x, vectorized=True)),
            TypeError,
            "^drift takes one argument more",
        ),
        (
            lambda: solved(McKeanVlasov(drift=lambda t, x, m: x[:3], vectorized=True)),
            ValueError,
            r"^drift must return \(10,\) numbers, got \(3,\)$",
        ),
        (
            lambda: solved(McKeanVlasov(drift=lambda t, x, m: 1e300 * x**3, vectorized=True)),
            ValueError,
            "^particles are not finite in the end",
        ),
        (
            lambda: solved(McKeanVlasov(drift=lambda t, x, m: np.linalg.inv(x), vectorized=True)),
            (ValueError, TypeError),
            "^drift failed",
        ),
    ],
)
def test_bad_input(work, error, message):
    with pytest.raises(error, match=message) as found:
        work()
    assert "\n" not in str(found.value)
