"""Solutions of frozen training, run again."""

from __future__ import annotations

from typing import Any

from flds.frozen.solve import solve_frozen
from flds.results.solution import Solution
from flds.training.family import TrainingFamily
from flds.training.problem import TrainingProblem


class FrozenFamily(TrainingFamily):
    """Solutions of `solve_frozen`, which keep no state; see `flds.results.family.Family`."""

    solvers: tuple[str, ...] = ("solve_frozen",)
    changes: tuple[str, ...] = ()

    def again(self, solution: Solution, problem: TrainingProblem, progress: bool, changes: dict[str, Any]) -> Solution:
        """Run the solver again."""
        names = ("backward_weights", "depth", "particles", "record_every", "recorded_samples")
        options = {name: solution.settings[name] for name in names} | {"seed": solution.seed}
        return solve_frozen(problem, **options | changes)
