"""Which package may import which, what is public, and how fast the first import is."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "solvers": {"flds", "validation", "torch", "torchsde"},
    "flds": {"validation", "torch", "torchsde"},
    "validation": {"tests"},
}
# torch may be imported by any module of `validation`, but upward imports only inside the functions that
# run validations from the command line
UPWARD = {"flds/cli/commands.py"}


def imports(path: Path):
    """Yield the top-level package of every import and whether it stands inside a function."""
    tree = ast.parse(path.read_text())
    inside = {n for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name.split(".")[0], node in inside
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0], node in inside


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        for name, inside in imports(path):
            allowed = name == "validation" and inside and str(path.relative_to(ROOT)) in UPWARD
            assert name not in FORBIDDEN[package] or allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_modules_stay_readable():
    for package in FORBIDDEN:
        for path in (ROOT / package).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, f"{path.relative_to(ROOT)} is longer than 400 lines"


def test_public_names_exist_and_are_documented():
    for package in ("flds", "solvers", "validation"):
        module = importlib.import_module(package)
        for name in module.__all__:
            item = getattr(module, name)
            assert item.__doc__, f"{package}.{name} has no docstring"
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = module.nothing
    assert importlib.import_module("flds").__all__ == [
        "Activation", "Attention", "Block", "CostEstimate", "Dataset", "GatedLinearUnit", "LimitEstimate",
        "MatrixAfterActivation", "MatrixBeforeActivation", "MeanFieldProblem", "MeanFieldSolution", "MeanOptions",
        "Options", "Regime", "Solution", "TrainingProblem", "TwoLayerPerceptron", "draw_units", "estimate_cost",
        "estimate_limit", "follow_units", "load", "load_cifar10", "load_digits", "load_npz", "rerun", "residual_regime",
        "resume", "simulate_resnet", "solve_backward", "solve_flds", "solve_forward", "solve_mean_ode",
        "solve_tangent_ode", "sweep",
    ]  # fmt: skip


def test_public_names_of_the_general_solver():
    assert importlib.import_module("solvers").__all__ == [
        "Address", "Blocks", "BrownianMotion", "ConvergenceStudy", "DenseOperator", "ExternalField",
        "IncrementalCholesky", "LazyOperator", "McKeanVlasov", "Noise", "Solution", "Statistic", "Stream", "equations",
        "load", "particle_order", "particles", "quantiles", "rank_revealing_cholesky", "resume", "schemes",
        "solve", "strong_order", "tanh", "weak_order",
    ]  # fmt: skip


def best_of(command, runs=5):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def test_import_and_help_are_light():
    heavy = "numba", "xarray", "matplotlib", "sklearn", "scipy", "torch"
    code = f"import sys, flds; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    interpreter = best_of([sys.executable, "-c", "pass"])
    assert best_of([sys.executable, "-c", "import flds"]) - interpreter < 0.3
    assert best_of([sys.executable, "-m", "flds", "--help"]) < 0.6 + interpreter


def test_solving_does_not_import_torch():
    code = (
        "import sys, numpy as np, flds; "
        "flds.solve_flds(flds.TrainingProblem(np.ones((1, 1)), [1.0], steps=1), particles=50, depth=1); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
