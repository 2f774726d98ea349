"""What all ready systems have in common: they pickle, take other parameters without compiling, and refuse bad ones."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from numba import njit

import solvers
from solvers import equations

SYSTEMS = [
    "consensus", "dawson", "ensemble_kalman", "fitzhugh_nagumo", "inertial_kuramoto", "integrate_and_fire", "langevin",
    "motsch_tadmor", "vicsek",
]  # fmt: skip


def short(system, **rest):
    dt = getattr(system.args, "dt", 0.01)
    return system.solve(4 * dt, 4, particles=60, **rest)


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_run_pickle_and_say_what_particles_are(name):
    system = getattr(equations, name)()
    run = short(system)
    assert run.status == "completed"
    assert len(system.components) == (1 if run.final_particles.ndim == 1 else run.final_particles.shape[1])
    again = short(pickle.loads(pickle.dumps(system)))
    np.testing.assert_array_equal(again.final_particles, run.final_particles)
    by_hand = solvers.solve(
        system.equation, system.start, 0.0, float(run.times[-1]), 4, args=system.args, particles=60, **system.options
    )
    np.testing.assert_array_equal(by_hand.final_particles, run.final_particles)


def test_other_parameters_and_options_replace_those_of_a_system():
    system = equations.dawson()
    still = system.args._replace(volatility=0.0, coupling=0.0)
    run = short(system, args=still, x0=np.ones(60), scheme="euler_maruyama")
    np.testing.assert_array_equal(run.final_particles, np.ones(60))
    assert run.settings["scheme"] == "euler_maruyama"


def test_an_objective_of_ones_own():
    system = equations.consensus(njit(lambda x: (x[0] - 1.0) ** 2 + (x[1] + 2.0) ** 2), dimension=2, volatility=0.5)
    run = system.solve(10.0, 200, particles=300)
    np.testing.assert_allclose(run.moments[-1, :2], [1.0, -2.0], atol=0.05)


def test_a_system_is_known_by_its_parameters_in_another_process():
    program = "from solvers import equations; print(equations.vicsek().args)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.strip() == str(equations.vicsek().args)


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (lambda: equations.dawson(coupling="strong"), TypeError, "^coupling must be "),
        (lambda: equations.dawson(volatility=float("nan")), ValueError, "^volatility must be "),
        (lambda: equations.integrate_and_fire(dt=0.0), ValueError, "^dt must be "),
        (lambda: equations.vicsek(radius=0.6).solve(1.0, 5, particles=10), ValueError, "^cutoff must be at most half"),
        (lambda: equations.vicsek(radius=-1.0), ValueError, "^radius must be "),
        (lambda: equations.inertial_kuramoto(mass=0.0), ValueError, "^mass must be "),
        (lambda: equations.langevin(temperature=-1.0), ValueError, "^temperature must be "),
        (lambda: equations.consensus(lambda x: x.sum()), TypeError, "^objective must be compiled with numba.njit"),
        (lambda: equations.consensus(dimension=1), ValueError, "^dimension must be at least 2, got 1$"),
        (lambda: equations.ensemble_kalman(data=(1.0, 2.0)), ValueError, r"^forward must be \(k, 2\) and data \(k,\)"),
        (
            lambda: equations.integrate_and_fire().solve(1.0, 0, particles=9),
            ValueError,
            "^steps must be at least 1",
        ),
        (lambda: equations.dawson().solve("1", 10, particles=9), TypeError, "^t1 must be "),
        (
            lambda: equations.dawson().solve(1.0, 10),
            TypeError,
            "^x0 is a sampler, so the number",
        ),
        (lambda: equations.dawson().solve(1.0, 10, particles=0), ValueError, "^particles must be at least 1, got 0$"),
        (
            lambda: equations.integrate_and_fire().solve(1.0, 10, particles=10),
            ValueError,
            "^steps of 0.1 are not those of args.dt = 0.005",
        ),
    ],
)
def test_bad_input(work, error, message):
    with pytest.raises(error, match=message) as found:
        work()
    assert "\n" not in str(found.value)
