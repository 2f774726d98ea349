"""The bar that counts steps: on standard error, closed however a solve ends, and not there unless it is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import tqdm

import flds
import solvers
from solvers import McKeanVlasov

ORNSTEIN_UHLENBECK = solvers.equations.ornstein_uhlenbeck()
STEPS = 10


def solve(**options):
    return solvers.solve(ORNSTEIN_UHLENBECK, np.ones(50), 0.0, 1.0, STEPS, **options)


def resume(**options):
    return solvers.resume(ORNSTEIN_UHLENBECK, solve(), 1.5, 5, **options)


def forward(**options):
    return flds.solve_forward(particles=50, depth=STEPS, **options)


def backward(**options):
    return flds.solve_backward(particles=50, depth=STEPS, **options)


@pytest.fixture
def bars(monkeypatch):
    """The bars that were made, each with the number of times that it was closed."""
    made = []

    class Bar(tqdm.tqdm):
        def __init__(self, *arguments, **options):
            made.append(self)
            self.closed = 0
            super().__init__(*arguments, **options)

        def close(self):
            self.closed += 1
            super().close()

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    return made


@pytest.mark.parametrize(("run", "steps"), [(solve, 10), (resume, 5), (forward, 10), (backward, 20)])
def test_steps_are_counted_on_standard_error(run, steps, bars, capsys):
    quiet = run()
    assert capsys.readouterr() == ("", "")
    assert not bars
    shown = run(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert f"| 0/{steps} [" in err
    assert "step/s]" in err
    (bar,) = bars
    assert (bar.n, bar.total, bar.unit, bar.closed > 0) == (steps, steps, "step", True)
    np.testing.assert_array_equal(shown.final_particles, quiet.final_particles)
    assert run(progress=np.False_).status == "completed"
    assert len(bars) == 1
    for wrong in (1, "yes", None):
        with pytest.raises(TypeError, match=f"^progress must be True or False, got {wrong!r}$"):
            run(progress=wrong)


def raises(error, at):
    def statistic(t, x):
        if t > at:
            raise error
        return t

    return statistic


@pytest.mark.parametrize(
    ("error", "at", "status", "steps"),
    [(KeyboardInterrupt(), 0.45, "interrupted", 4), (ValueError("no"), 0.45, "failed", 4)],
)
def test_a_bar_is_closed_when_a_run_ends_early(error, at, status, steps, bars):
    with pytest.warns(RuntimeWarning, match=status):
        run = solve(save=[raises(error, at)], progress=True)
    assert run.status == status
    assert [(bar.n, bar.closed > 0) for bar in bars] == [(steps, True)]


def test_a_bar_is_closed_when_a_run_diverges(bars):
    grows = McKeanVlasov(lambda t, x, m: 1e60 * x, vectorized=True)
    with pytest.warns(RuntimeWarning, match="diverged"):
        solvers.solve(grows, np.ones(3), 0.0, 1.0, STEPS, progress=True)
    assert [(bar.n, bar.closed > 0) for bar in bars] == [(1, True)]


def test_a_bar_is_closed_on_errors(bars):
    def fails(t, x, m):
        if x.size > 100:  # more than the trial before the run takes
            raise ValueError("no")
        return -x

    with pytest.raises(RuntimeError, match="the first step failed: ValueError: no"):
        solvers.solve(McKeanVlasov(fails, vectorized=True), np.ones(1000), 0.0, 1.0, STEPS, progress=True)
    assert [(bar.n, bar.closed > 0) for bar in bars] == [(0, True)]


@pytest.mark.parametrize(("run", "steps"), [(forward, 3), (backward, 13)])
def test_a_bar_is_closed_when_the_untrained_network_is_interrupted(run, steps, bars, monkeypatch):
    def update(bar, done):
        bar.n += done
        if bar.n >= steps:
            raise KeyboardInterrupt

    monkeypatch.setattr(tqdm.tqdm, "update", update)
    with pytest.raises(KeyboardInterrupt):
        run(progress=True)
    (bar,) = bars
    assert steps <= bar.n <= 20
    assert bar.closed > 0
