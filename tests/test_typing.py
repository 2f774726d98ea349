"""Code of users is checked against the types of the installed packages, and its mistakes are found."""

from __future__ import annotations

import subprocess
import sys

import pytest

USED = """
import numpy as np

import flds
import solvers

problem = flds.TrainingProblem(np.eye(3), [1.0, -1.0, 0.5], optimizer=flds.SGD(momentum=0.9), steps=2)
limit: flds.Solution = flds.solve_flds(problem, particles=100, depth=2, replicates=2)
estimate: flds.LimitEstimate = flds.estimate_limit(problem, target_error=0.5)
text: str = limit.summary() + estimate.summary()
equation = solvers.McKeanVlasov(drift=lambda t, x, m: -x, diffusion=lambda t, x, m: 1.0, noise="additive")
run = solvers.solve(equation, np.zeros(10), 0.0, 1.0, steps=5, particles=10)
last: float = float(run.mean[-1])
"""
MISTAKES = """
flds.solve_flds(problem, particles="many")
flds.TrainingProblem(np.eye(3), [1.0, -1.0, 0.5], nothing=1)
number: int = limit.summary()
flds.estimate_limit(problem, target=0.5)
"""


@pytest.mark.parametrize(("mistakes", "errors"), [("", 0), (MISTAKES, 4)])
def test_types_of_user_code(mistakes, errors, tmp_path):
    path = tmp_path / "user.py"
    path.write_text(USED + mistakes)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", path.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count(": error:") == errors, done.stdout + done.stderr
