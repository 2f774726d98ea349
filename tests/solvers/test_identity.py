"""Keys of functions that are made of others: equal for equal code, and another key for whatever changes what runs."""

from __future__ import annotations

import math
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numba import njit
from numba.extending import intrinsic

from solvers.accelerate import composed_kernel
from solvers.identity import identity
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.events.event import NO_PLAN
from solvers.sde.schemes.euler_maruyama import EulerMaruyama
from solvers.sde.schemes.passes import march, stage_pass

SCALE = 2.0
TABLE = np.arange(3.0)
helper = njit(lambda x: SCALE * x)
tools = types.ModuleType("tools")
tools.factor = 3.0


class Pair(NamedTuple):
    first: float
    second: float


def made(constant=1.0, inner=helper, **options):
    """A function of another one, as an equation makes them."""
    part = njit(lambda x: inner(x) + constant, **options)
    return lambda x: part(x) + math.sqrt(x)


def test_equal_functions_have_one_key():
    assert identity(made()) == identity(made())
    assert identity(made()) is not None


@pytest.mark.parametrize(
    "other",
    [
        made(constant=1.5),
        made(constant=1),
        made(inner=njit(lambda x: SCALE * x + 1)),
        made(inner=njit(lambda x: SCALE * x, fastmath=True)),
        made(inner=njit("float32(float32)")(lambda x: SCALE * x)),
        made(inner=math.sin),
        made(error_model="numpy"),
        lambda x: made()(x),
    ],
    ids=["closure", "type", "inner code", "inner options", "signature", "function", "options", "code"],
)
def test_what_runs_changes_the_key(other):
    assert identity(other) != identity(made())


@pytest.mark.parametrize(
    ("function", "name", "value"),
    [
        (lambda x: SCALE * x, "SCALE", 3.0),
        (lambda x: TABLE[0] * x, "TABLE", np.array([1.0, 1.0, 2.0])),
        (lambda x: helper(x), "helper", njit(lambda x: x)),
        (lambda x: made_of_pairs(Pair(x, x)), "made_of_pairs", njit(lambda pair: pair.second)),
    ],
    ids=["number", "array", "function", "named tuple"],
)
def test_names_of_the_module_belong_to_the_key(function, name, value, monkeypatch):
    before = identity(function)
    monkeypatch.setattr(sys.modules[__name__], name, value)
    assert before is not None
    assert identity(function) != before


made_of_pairs = njit(lambda pair: pair.first)


def test_names_of_other_modules_belong_to_the_key(monkeypatch):
    function = lambda x: tools.factor * x  # noqa: E731
    before = identity(function)
    monkeypatch.setattr(tools, "factor", 4.0)
    assert before is not None
    assert identity(function) != before


def test_defaults_belong_to_the_key():
    assert identity(lambda x, y=1.0: x + y) != identity(lambda x, y=2.0: x + y)


@intrinsic
def unseen(context, x):
    return x(x), lambda context, builder, signature, arguments: arguments[0]


class Callable:
    def __call__(self, x):
        return x


@pytest.mark.parametrize(
    "value", [unseen, Callable(), lambda x: x, [1.0], {"a": 1}, {1, 2}, object()],
    ids=["intrinsic", "object", "Python function", "list", "dict", "set", "something"],
)  # fmt: skip
def test_what_cannot_be_told_has_no_key(value):
    assert identity(lambda x: value(x)) is None


def test_recursion_ends():
    @njit
    def again(x):
        return x if x < 1 else again(x - 1)

    assert identity(lambda x: again(x)) is not None


PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from tests.solvers.test_identity import made
from solvers.identity import identity
print(identity(made(fastmath={{"contract", "reassoc", "nsz", "arcp"}})))
"""


def test_another_process_finds_the_same_key():
    root = str(Path(__file__).parents[2])
    keys = set()
    for seed in ("1", "2"):  # of the order of sets
        keys.add(
            subprocess.run(
                [sys.executable, "-c", PROGRAM.format(root=root)], env={"PYTHONHASHSEED": seed, "HOME": "/nonexistent"},
                capture_output=True, text=True, check=True,
            ).stdout
        )  # fmt: skip
    assert len(keys) == 1
    assert "None" not in keys.pop()


def test_a_changed_value_is_compiled_anew(tmp_path, monkeypatch):
    """The code on disk of one constant is not run for another."""
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))

    def results(constant):
        part = njit(lambda x: x + constant)
        compiled = composed_kernel(lambda x: 2.0 * part(x))
        return compiled(1.0), sum(compiled.stats.cache_hits.values())

    assert results(1.0) == (4.0, 0)
    assert results(2.0) == (6.0, 0)
    assert results(1.0) == (4.0, 1)
    assert results(2.0) == (6.0, 1)


SCALED = """
import sys
import numba
import numpy as np
sys.path.insert(0, {root!r})
numba.config.CACHE_DIR = {folder!r}
from solvers.accelerate import composed_kernel

def scaled(factor):
    def function(x):
        out = np.empty(len(x))
        for i in range(len(x)):
            out[i] = factor * x[i]
        return out
    return composed_kernel(function)

functions = [scaled(float(argument)) for argument in sys.argv[1:]]
print(*[function(np.ones(1))[0] for function in functions])
print(sum(sum(function.stats.cache_hits.values()) for function in functions))
"""


def test_code_of_two_processes_meets_in_a_third(tmp_path):
    """Functions of one name, each the first of its process, which Numba would give one name in machine code."""
    program = tmp_path / "scaled.py"
    program.write_text(SCALED.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path)))
    for factors, hits in ((["2"], 0), (["3"], 0), (["2", "3"], 2)):
        done = subprocess.run([sys.executable, str(program), *factors], capture_output=True, text=True)
        assert done.stdout.split() == [*(f"{factor}.0" for factor in factors), str(hits)], done.stderr


def test_every_process_counts_functions_apart():
    program = "import solvers.accelerate, numba; from numba.core.bytecode import FunctionIdentity as F; "
    program += "print(next(F._unique_ids))"
    root = str(Path(__file__).parents[2])
    numbers = [
        int(subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True).stdout)
        for _ in range(2)
    ]
    assert abs(numbers[0] - numbers[1]) > 2**32


def test_old_code_is_thrown_away(tmp_path, monkeypatch):
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("solvers.kernel_cache._MOST_FILES", 3)

    def hits(constant):
        compiled = composed_kernel(lambda x: x + constant)
        assert compiled(1.0) == 1.0 + constant
        return sum(compiled.stats.cache_hits.values())

    for constant in (1.0, 2.0, 3.0, 4.0, 5.0):
        assert hits(constant) == 0
    assert len(list(tmp_path.rglob("*.nbk"))) == 3
    assert hits(5.0) == 1
    assert hits(1.0) == 0


@pytest.mark.parametrize("name", ["march", "pass"])
def test_kernels_that_are_made_of_an_equation_have_keys(name):
    """Without one they would be compiled in every process."""
    equation = McKeanVlasov(drift=njit(lambda t, x, m: -x), diffusion=njit(lambda t, x, m: 1.0), noise="additive")
    form, stages = Form(True, 1, 0, True, 1, (), "none", False), EulerMaruyama.stages
    made = march(equation, form, stages, (0.0, 1.0), NO_PLAN, None)
    found = made if name == "march" else stage_pass(equation, form, stages[0]).advance
    assert identity(found.py_func) is not None
