"""Particles in float32: the same run, rounded once a step."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

import solvers
from solvers import Absorbing, Jumps, McKeanVlasov, Pairs, Periodic, Reflecting, Reset

X0 = np.random.default_rng(0).random(3000)
STEPS = 16
# Positions of order 1 are rounded by 2^-25 at most in each step, and grow by a factor e at most.
ROUNDING = 3.0 * STEPS * 2.0**-25

EQUATION = McKeanVlasov(
    drift=njit(lambda t, x, m: 0.5 * m - x),
    diffusion=njit(lambda t, x, m: 0.2),
    moments=njit(lambda t, x: x),
    noise="additive",
)
CASES = {
    "plain": {},
    "heun": {"scheme": "heun"},
    "milstein": {"scheme": "milstein"},
    "sra1": {"scheme": "sra1"},
    "tamed": {"scheme": "tamed_euler"},
    "implicit": {"scheme": "drift_implicit_euler"},
    "reflecting": {"boundary": Reflecting(0.0, 1.0)},
    "between": {"save_at": [0.0, 0.33, 1.0]},
}


def run(dtype, equation=EQUATION, x0=X0, **rest):
    return solvers.solve(equation, x0, 0.0, 1.0, STEPS, dtype=dtype, **rest)


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_that_of_float64_rounded(case):
    single, double = (run(dtype, **CASES[case]) for dtype in ("float32", "float64"))
    assert single.final_particles.dtype == np.float32
    apart = np.abs(single.final_particles - double.final_particles)
    assert 0 < apart.max() < ROUNDING
    np.testing.assert_allclose(single.mean, double.mean, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(single.variance, double.variance, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("vectorized", [False, True])
def test_pairs_and_later_moments(vectorized):
    compiled = (lambda f: f) if vectorized else njit
    equation = McKeanVlasov(
        drift=compiled(lambda t, x, m: m[1] * (m[0] - x)),
        moments=(compiled(lambda t, x: x), compiled(lambda t, x, m: abs(x - m))),
        interaction=Pairs(compiled(lambda x, y: np.sin(y - x)), cutoff=10.0),
        vectorized=vectorized,
    )
    single, double = (run(dtype, equation, X0[:500]) for dtype in ("float32", "float64"))
    assert np.abs(single.final_particles - double.final_particles).max() < ROUNDING


def test_laws_with_events_are_the_same():
    """A particle near a threshold may fall to either side, so few may differ by more than rounding."""
    jumps = Jumps(njit(lambda t, x, m: 1.0), njit(lambda t, x, m: 0.5), 1.0)
    alone = McKeanVlasov(drift=njit(lambda t, x, m: 1.5 - x), diffusion=njit(lambda t, x, m: 0.2), noise="additive")
    for rest in (
        {"boundary": Periodic(0.0, 1.0), "jumps": jumps},
        {"boundary": Absorbing(0.0, 1.0)},
        {"reset": Reset(threshold=1.0, value=0.1)},
    ):
        single, double = (run(dtype, alone, **rest) for dtype in ("float32", "float64"))
        apart = np.abs(single.final_particles - double.final_particles)
        assert np.mean(apart > ROUNDING) < 5e-3


def test_a_run_in_float32_goes_on_in_float32(tmp_path):
    whole = run("float32")
    half = solvers.solve(EQUATION, X0, 0.0, 0.5, STEPS // 2, dtype="float32")
    half.save(tmp_path / "half.nc")
    rest = solvers.resume(EQUATION, solvers.load(tmp_path / "half.nc"), 1.0, STEPS // 2)
    np.testing.assert_array_equal(rest.final_particles, whole.final_particles)
    assert rest.settings["dtype"] == "float32"
    threads = run("float32", threads=1)
    np.testing.assert_array_equal(threads.final_particles, whole.final_particles)


def test_numbers_beyond_float32_end_the_run():
    equation = McKeanVlasov(drift=njit(lambda t, x, m: x * 1e10))
    with pytest.warns(RuntimeWarning, match="diverged"):
        single = run("float32", equation)
    assert single.status == "diverged"
    with pytest.raises(ValueError, match=r"^x0 has numbers that float32 cannot hold$"):
        run("float32", x0=np.array([1e39, 1.0]))
    with pytest.raises(ValueError, match=r"^dtype must be "):
        run("float16")
    with pytest.raises(ValueError, match=r"^dtype must be "):
        run(np.float32)
