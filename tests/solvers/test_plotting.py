"""Pictures of equations with boundaries and events: densities between the ends, absorption, and resets."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from numba import njit

import solvers
from solvers import plotting
from solvers.plotting.events import ends_of, event_panels
from solvers.plotting.style import EVERYWHERE, Ends, density

OU = solvers.equations.ornstein_uhlenbeck()
STILL = solvers.McKeanVlasov(drift=njit(lambda t, x, m: (0.0, 0.0)))
POINTS = solvers.McKeanVlasov(drift=njit(lambda t, x, m: 0.0))


def drawn(values, ends):
    ax = Figure().subplots()
    density(ax, values, "x", "smoothed", ends=ends)
    line = next(line for line in ax.lines if line.get_label() == "smoothed")
    return line.get_xdata(), line.get_ydata(), ax


@pytest.mark.parametrize("ends", [Ends(0.0, 1.0), Ends(0.0, 1.0, True), Ends(0.0, np.inf), EVERYWHERE])
def test_a_density_keeps_within_its_ends_and_its_mass(ends):
    """Uniform numbers: 1 up to the ends, not half of it. 20,000 of them: four standard errors are 8 % of it here.

    A kernel of width b smooths N numbers to a relative variance of 1 / (2 √π N b), and b = 0.9 · 0.29 · N^-0.2; beside
    an end it is doubled, since both halves of the kernel see the same numbers.
    """
    values = np.random.default_rng(0).uniform(size=20_000)
    x, y, ax = drawn(values, ends)
    # tails of 10⁻³ may be cut off, and the grid has 1,024 places
    assert np.sum(y) * (x[1] - x[0]) == pytest.approx(1.0, abs=3e-3)
    assert ends.low <= x[0]
    assert x[-1] <= ends.high
    bandwidth = 0.9 * values.std() * len(values) ** -0.2
    margin = 4 * np.sqrt(2 / (2 * np.sqrt(np.pi) * len(values) * bandwidth))
    whole = np.abs(y - 1) < margin
    assert whole[(x > 4 * bandwidth) & (x < 1 - 4 * bandwidth)].all()
    if np.isfinite(ends.low):
        assert whole[0]
    if np.isfinite(ends.high):
        assert whole[-1]
    assert sum(line.get_color() == "0.5" for line in ax.lines) == np.isfinite(ends[:2]).sum()


def test_a_period_has_no_seam():
    values = np.random.default_rng(1).normal(0.0, 0.1, 5000) % 1.0
    _x, y, _ = drawn(values, Ends(0.0, 1.0, True))
    assert y[0] == pytest.approx(y[-1], rel=0.02)  # half a cell from the end at either side
    assert y[0] > 0.9 * y.max()


def test_ends_are_those_of_the_boundary():
    planes = [
        (solvers.Reflecting(0.0, (np.inf, 2.0)), [Ends(0.0, np.inf), Ends(0.0, 2.0)]),
        (solvers.Periodic((0.0, -np.inf), (1.5, np.inf)), [Ends(0.0, 1.5, True), EVERYWHERE]),
        (solvers.Absorbing(-1e-3, 4), [Ends(-1e-3, 4.0)] * 2),
    ]
    for boundary, expected in planes:
        run = solvers.solve(STILL, np.ones((5, 2)), 0.0, 1.0, 1, boundary=boundary)
        assert [ends_of(run, component) for component in (0, 1)] == expected
    run = solvers.solve(POINTS, np.zeros(5), 0.0, 1.0, 1, reset=solvers.Reset(threshold=1.5, value=0.0))
    assert ends_of(run, 0) == Ends(-np.inf, 1.5)
    assert ends_of(solvers.solve(OU, np.zeros(5), 0.0, 1.0, 1), 0) == EVERYWHERE


def drawn_as(figure, title):
    return next(ax for ax in figure.axes if ax.get_title() == title)


def test_followed_particles_and_densities_are_drawn():
    save = {"paths": solvers.trajectories([0, 3]), "law": solvers.density(np.linspace(-2.0, 2.0, 9))}
    run = solvers.solve(OU, np.linspace(-1, 1, 50), 0.0, 1.0, 20, save=save, save_at=[0.5, 1.0])
    figure = plotting.overview(run)
    paths = drawn_as(figure, "Trajectories")
    for place, (line, number) in enumerate(zip(paths.lines, ("0", "3"), strict=True)):
        np.testing.assert_array_equal(line.get_xdata(), np.linspace(0.0, 1.0, 21))
        np.testing.assert_array_equal(line.get_ydata(), run.paths[:, place])
        assert line.get_label() == f"particle {number}"
    law = drawn_as(figure, "Density")
    for place, (steps, label) in enumerate(zip(law.patches, ("t = 0.5", "t = 1"), strict=True)):
        np.testing.assert_allclose(steps.get_data().edges, np.linspace(-2.0, 2.0, 9), atol=1e-14)
        np.testing.assert_array_equal(steps.get_data().values, run.law[place])
        assert steps.get_label() == label


def test_joint_densities_and_those_of_several_runs_are_drawn():
    edges = np.linspace(-2.0, 2.0, 9)
    start = np.random.default_rng(0).normal(size=(50, 2))
    run = solvers.solve(STILL, start, 0.0, 1.0, 2, save=[solvers.density([edges, edges[:6]])])
    mesh = drawn_as(plotting.overview(run), "Joint density at t = 1").collections[0]
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).ravel(), run.density[-1].T.ravel())
    many = solvers.solve_many(OU, np.linspace(-1, 1, 50), 0.0, 1.0, 20, seed=[1, 2], save=[solvers.density(edges)])
    law = drawn_as(plotting.overview(many), "Density at t = 1")
    assert [steps.get_label() for steps in law.patches] == ["run 0", "run 1"]
    for steps, values in zip(law.patches, many.density[:, -1], strict=True):
        np.testing.assert_array_equal(steps.get_data().values, values)


def test_what_was_absorbed_is_counted_and_has_no_density(tmp_path):
    made = solvers.solve(OU, np.ones(400), 0.0, 1.0, 50, boundary=solvers.Absorbing(0.5, 1.5))
    run = solvers.load(made.save(tmp_path / "run.nc"))
    absorbed = np.isfinite(run.hitting_times)
    assert 0 < absorbed.sum() < 400
    figure = plotting.overview(run)
    titles = [ax.get_title() for ax in figure.axes]
    assert f"Law of the particles at t = 1, {absorbed.sum()} absorbed" in titles
    share = next(ax for ax in figure.axes if ax.get_title() == "Share of the particles absorbed").lines[0]
    for t in (0.1, 0.5, 1.0):
        by_then = share.get_ydata()[np.searchsorted(share.get_xdata(), t + 1e-9) - 1]
        assert by_then == pytest.approx((run.hitting_times <= t + 1e-9).mean(), abs=1e-12)
    everywhere = solvers.solve(OU, np.ones(50), 0.0, 9.0, 900, boundary=solvers.Absorbing(0.9, 1.1))
    assert np.isfinite(everywhere.hitting_times).all()
    assert not any("Law" in ax.get_title() for ax in plotting.overview(everywhere).axes)


def test_resets_are_counted():
    jumps = solvers.Jumps(rate=njit(lambda t, x, m: 4.0), size=njit(lambda t, x, m: 1.0), rate_bound=4.0)
    reset = solvers.Reset(threshold=0.5, value=0.0)
    run = solvers.solve(POINTS, np.zeros(300), 0.0, 1.0, 100, jumps=jumps, reset=reset)
    (draw,) = event_panels(run)
    ax = Figure().subplots()
    draw(run, ax)
    heights = np.array([bar.get_height() for bar in ax.patches])
    np.testing.assert_allclose(heights, np.bincount(run.resets.astype(int)) / 300)
    assert heights @ np.arange(len(heights)) == pytest.approx(run.resets.mean())
