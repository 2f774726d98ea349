"""Which package may import which, what is public, and how fast the first import is."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("solvers", "flds", "validation")
# Which room may import which, itself aside; what lies beside the rooms of a package is a room of its own.
ROOMS = {
    "solvers.checks": "",
    "solvers.interrupts": "",
    "solvers.processors": "solvers.checks",
    "solvers.fingerprint": "solvers.identity",
    "solvers.identity": "",
    "solvers.kernel_cache": "",
    "solvers.progress": "",
    "solvers.memory": "solvers.processors",
    "solvers.accelerate": "solvers.identity solvers.kernel_cache",
    "solvers.partition": "",
    "solvers.ranks": "solvers.checks solvers.memory solvers.processors",
    "solvers.results": "solvers.checks solvers.memory solvers.partition solvers.ranks",
    "solvers.ensemble": "solvers.accelerate solvers.checks solvers.interrupts solvers.memory solvers.partition "
    "solvers.processors solvers.ranks",
    "solvers.matrices": "solvers.accelerate solvers.ensemble solvers.partition",
    "solvers.sde": "solvers.accelerate solvers.checks solvers.ensemble solvers.fingerprint solvers.matrices "
    "solvers.memory solvers.partition solvers.plotting solvers.processors solvers.progress solvers.ranks "
    "solvers.results",
    "solvers.plotting": "solvers.results",
    "solvers.equations": "solvers.sde",
    "solvers.schemes": "solvers.sde",
    "flds.processes": "solvers",
    "flds.datasets": "solvers",
    "flds.results": "solvers",
    "flds.training": "flds.results solvers",
    "flds.frozen": "flds.results flds.training solvers",
    "flds.mean_ode": "flds.results flds.training solvers",
    "flds.limit": "flds.results flds.training solvers",
    "flds.plotting": "flds.results solvers",
    "flds.nn": "flds.plotting flds.training solvers",
    "flds.replay": "flds.frozen flds.mean_ode flds.results flds.training solvers",
    "flds.sweeps": "flds.mean_ode flds.processes flds.results flds.training solvers",
    "flds.cli": "flds.datasets flds.limit flds.mean_ode flds.plotting flds.replay flds.results flds.sweeps "
    "flds.training solvers",
    "flds.__main__": "flds.cli",
    "validation": "flds solvers",
}
# Packages of others that only these rooms, or parts of them, may import.
KEPT_OUT = {
    "torch": ("validation", "solvers.ensemble.device", "solvers.sde.tensors", "flds.nn"),
    "torchsde": ("validation",),
    "mpi4py": ("solvers.ranks",),
}
# Functions that run validations from the command line import upwards, inside.
UPWARD = "flds.cli.commands"


def modules() -> dict[str, Path]:
    """Every module by its full name."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


def imports(name: str, path: Path, known: dict[str, Path]):
    """Yield every module that one imports, ours by full names, and whether it does so inside a function.

    Relative imports count as what they mean, and names of modules in calls of import_module as imports.
    """
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inside = {node for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in inside
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in known else base, node in inside
        elif isinstance(node, ast.Call) and re.search("import_module|__import__", ast.dump(node.func)):
            named = [*node.args, *(keyword.value for keyword in node.keywords)]
            for argument in named:
                yield str(argument.value) if isinstance(argument, ast.Constant) else "?", node in inside


def room(name: str) -> str:
    """Return the room of a module; the package of `validation` is one."""
    return name if name.startswith("validation") and name.count(".") == 0 else ".".join(
        name.split(".")[: 1 if name.startswith("validation") else 2]
    )  # fmt: skip


def arrows() -> dict[str, set[tuple[str, bool]]]:
    known = modules()
    return {name: set(imports(name, path, known)) for name, path in known.items()}


def test_imports_go_down():
    wrong = []
    for name, targets in arrows().items():
        if name in ("flds", "solvers"):
            continue  # tables of contents, which load what is asked for
        allowed = set(ROOMS.get(room(name), "").split()) | {room(name)}
        for target, inside in targets:
            package = target.split(".")[0]
            if package in KEPT_OUT and not any(f"{name}.".startswith(f"{part}.") for part in KEPT_OUT[package]):
                wrong.append(f"{name} imports {package}")
            if package not in PACKAGES or (name == UPWARD and inside and package == "validation"):
                continue
            # the bare package only for its version
            if not {room(target), package} & allowed and not (target == "flds" and name == UPWARD and inside):
                wrong.append(f"{name} imports {target}")
    assert not wrong, wrong


def test_every_room_is_listed():
    assert {room(name) for name in modules()} - {"flds", "solvers"} <= set(ROOMS)


def test_modules_named_by_expressions_are_those_of_tables_of_contents():
    found = {name for name, targets in arrows().items() if any(target == "?" for target, _ in targets)}
    assert found <= {"flds", "solvers", "solvers.sde.schemes", "validation", "validation.figures"}


def test_no_circle_of_files():
    """A file that is reached from itself, by whatever imports, lazy ones included, or names its table of contents."""
    known, found = modules(), arrows()
    graph = {
        name: {target for target, _ in found[name] if target in known and target not in ("flds", "solvers", name)}
        for name in known if name not in ("flds", "solvers")
    }  # fmt: skip
    for name, targets in graph.items():  # a table of contents may load every module beside it
        if any(target == "?" for target, _ in found[name]) and name.count("."):
            targets |= {other for other in known if other.startswith(f"{name}.")}
    while leaves := [name for name, targets in graph.items() if not targets & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, f"files that reach themselves are among {sorted(graph)}"


def test_planted_arrows_are_found(tmp_path):
    known = modules()
    (tmp_path / "planted.py").write_text(
        "from ..training import solve\nfrom importlib import import_module\n"
        "def f():\n    from flds.replay import predict\n    import_module('flds.cli.commands')\n"
        "    import_module(name='flds.limit.estimate')\n    __import__('flds.sweeps')\n"
        "    import_module(f'flds.{f}')\n"
    )
    found = set(imports("flds.results.planted", tmp_path / "planted.py", known))
    expected = {("flds.training.solve", False), ("flds.replay", True), ("flds.cli.commands", True)}
    expected |= {("flds.limit.estimate", True), ("flds.sweeps", True), ("?", True)}
    assert expected <= found


def test_modules_stay_readable():
    for package in PACKAGES:
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
        "Activation", "Adam", "Attention", "Block", "BranchLayer", "BranchMatrix", "BranchPull", "BranchVector",
        "Comparison", "CostEstimate", "Dataset", "GatedLinearUnit", "LimitEstimate", "MatrixAfterActivation",
        "MatrixBeforeActivation", "MeanFieldProblem", "MeanFieldSolution", "MeanOptions", "Muon", "Optimizer",
        "Options", "Regime", "ResidualBranch", "SGD", "Solution", "Sweep", "TrainingProblem", "TrainingRecord",
        "TwoLayerPerceptron",
        "compare",
        "draw_units",
        "estimate_cost",
        "estimate_limit", "follow_units", "from_torch",
        "kernel_alignment", "load", "load_cifar10", "load_digits", "load_npz",
        "rerun", "residual_regime",
        "resume", "simulate_resnet", "solve_backward", "solve_flds", "solve_forward", "solve_frozen",
        "solve_mean_ode", "solve_tangent_ode", "sweep", "tangent_kernel",
    ]  # fmt: skip


def test_public_names_of_the_general_solver():
    assert importlib.import_module("solvers").__all__ == [
        "Absorbing", "Address", "Blocks", "BrownianMotion", "ConvergenceStudy", "DenseOperator", "ExternalField",
        "GroupMeans", "Jumps", "Largest", "LazyOperator", "McKeanVlasov", "Moment", "MultilevelEstimate", "Noise",
        "Pairs", "Periodic", "Reflecting", "Reset", "Solution", "Statistic", "Stream", "TensorRun", "WeightedMean",
        "density", "equations", "erf", "exp", "load", "mlmc", "particle_order", "particles", "plotting", "quantiles",
        "rank_revealing_cholesky", "resume", "schemes", "solve", "solve_many", "solve_tensors", "strong_order", "tanh",
        "trajectories", "weak_order",
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
