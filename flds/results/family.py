"""What it takes to run a kind of solution again."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers.results.solution import Solution


class Family(Protocol):
    """Knows how the solutions of some solvers came about.

    Attributes
    ----------
    solvers : tuple of str
        Names of the solvers, as settings have them.
    problem_type : type
        What they solve.
    changes : tuple of str
        Options that may differ when training goes on.
    """

    solvers: tuple[str, ...]
    problem_type: type
    changes: tuple[str, ...]

    def problem(self, solution: Any) -> Any:
        """Read the problem back; raises ValueError where a part of it is one's own, or too large to be kept."""

    def adapted(self, solution: Any, problem: Any) -> Any:
        """Return a problem with the steps and rates of the solution, which may have gone on training."""

    def differs(self, solution: Any, problem: Any) -> str | None:
        """Return the first thing in which a problem differs from that of the solution, or None."""

    def again(self, solution: Any, problem: Any, progress: bool, changes: dict[str, Any]) -> Solution:
        """Solve again, with some options changed."""

    def resume(
        self,
        solution: Any,
        problem: Any,
        done: int | None,
        steps: int | None,
        learning_rate: Any,
        progress: bool,
        changes: dict[str, Any],
    ) -> Solution:
        """Go on from a kept state, for more steps or to the end of those planned; `done` of them if it ended early."""

    def evaluate(self, solution: Any, problem: Any, inputs: ArrayLike) -> NDArray[np.float64]:
        """Return the outputs of every replicate on new inputs, (replicates, samples, …)."""


def problem_of(family: Family, solution: Any, given: Any) -> Any:
    """Return the problem given, if it is that of the solution, or read it back.

    Raises
    ------
    TypeError, ValueError
        If it is not, or cannot be read back.
    """
    if given is None:
        return family.problem(solution)
    if not isinstance(given, family.problem_type):
        raise TypeError(f"problem must be a flds.{family.problem_type.__name__}, got {type(given).__name__}")
    problem = family.adapted(solution, given)
    difference = family.differs(solution, problem)
    if difference is not None:
        raise ValueError(f"problem must be that of the solution, but differs in its {difference}")
    return problem
