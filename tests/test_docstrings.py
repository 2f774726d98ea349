"""What is public says what it takes, gives and raises, and where it comes from, as far as a program can tell.

Functions and classes named in `__all__` do so in the sections of numpydoc. Methods, properties, and what the modules
named there define, may do so in sentences: each parameter is named, and arrays come with a shape.
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import re
import sys
import textwrap
import typing

import numpy as np
import pytest

from flds import plotting

PACKAGES = ("flds", "flds.nn", "solvers", "validation")
ARRAYS = re.compile(r"Array|ndarray|Matrix|Coordinates|Parameters\b|Tensor")
SHAPE = re.compile(r"\(.*,.*\)|shape")
EQUATION = re.compile(r"\b[FH]-\(\d")
ELSEWHERE = re.compile(r"[Pp]arameters\s+(?:and errors )?are\s+those\s+of\s+`(\w+)`")
UNSOURCED = {
    # results, settings, files and data of one's own: nothing that was published is implemented
    "flds.CostEstimate", "flds.Dataset", "flds.LimitEstimate", "flds.MeanFieldSolution", "flds.MeanOptions",
    "flds.Options", "flds.Solution", "flds.Sweep", "flds.estimate_cost", "flds.load", "flds.load_npz", "flds.rerun",
    "flds.resume", "flds.sweep", "flds.from_torch",
    # this library's own measurements, and what follows from shapes
    "flds.nn.CoordinateCheck", "flds.nn.LayerCheck", "flds.nn.estimate_memory", "flds.nn.gaussian",
    "flds.nn.check_optimizer", "flds.nn.dense_linear", "flds.nn.TwoLayerNetwork",
    "solvers.Solution", "solvers.Statistic", "solvers.density", "solvers.load", "solvers.particles",
    "solvers.quantiles", "solvers.trajectories", "solvers.TensorRun",
    # what everybody does
    "solvers.Periodic", "solvers.Moment", "solvers.Largest", "solvers.GroupMeans",
    # functions and numbers that a user supplies
    "flds.Activation", "solvers.ExternalField",
    # parts of something that names the source: `Noise`, `strong_order`, `LazyOperator`, `mlmc`
    "solvers.Address", "solvers.BrownianMotion", "solvers.Stream", "solvers.ConvergenceStudy",
    "solvers.DenseOperator", "solvers.MultilevelEstimate",
    # this library's own
    "solvers.Blocks", "solvers.tanh",
}  # fmt: skip


def own(item):
    return (getattr(item, "__module__", None) or "").split(".")[0] in (*PACKAGES, "tests")


def public(package):
    """Yield name and item of what `__all__` names and of what its modules define, and whether it is the former."""
    for name in package.__all__:
        item, label = getattr(package, name), f"{package.__name__}.{name}"
        for key, member in vars(item).items() if inspect.ismodule(item) else ():
            if not key.startswith("_") and getattr(member, "__module__", "") == item.__name__ and callable(member):
                yield f"{label}.{key}", member, False
        if not inspect.ismodule(item):
            yield label, item, True


def homes(item):
    return [home for home in inspect.getmro(item) if own(home)] if inspect.isclass(item) else [item]


def docs(item):
    """The docstrings that speak for an item: its own, those of its bases here, and of what it refers to."""
    found = [inspect.cleandoc(home.__doc__ or "") for home in homes(item)]
    module = sys.modules[item.__module__]
    return found + [text for doc in found for other in ELSEWHERE.findall(doc) for text in docs(getattr(module, other))]


def sections(doc):
    parts = re.split(r"^(\w+)\n-+\n", doc, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(texts):
    """Type and description of every parameter that has an entry."""
    found = {}
    for part in map(sections, texts):
        listed = re.sub(r"\n\s*\n", "\n", part.get("Attributes", "") + part.get("Parameters", ""))
        for head, body in re.findall(r"^(\S.*)\n?((?:[ \n].*\n?)*)", listed, re.MULTILINE):
            names, _, kind = head.partition(" : ")
            found |= {name.strip().lstrip("*"): kind + body for name in names.split(",") if kind or body}
    return found


def refuses(item, deep=True):
    """Whether an item raises errors or, if `deep`, calls `solvers.checks` or a function or class here that does."""
    if inspect.isclass(item):
        makers = (getattr(item, name, None) for name in ("__init__", "__post_init__"))
        return any(refuses(maker) for maker in makers if inspect.isfunction(maker) and own(maker))
    item = getattr(item, "py_func", item)
    if item.__code__.co_filename == "<string>":  # written by dataclasses
        return False
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(item)))):
        if isinstance(node, ast.Raise) and node.exc:
            return True
        if deep and isinstance(node, ast.Call):
            called = item.__globals__.get(getattr(node.func, "id", None))
            known = (inspect.isfunction(called) or inspect.isclass(called)) and own(called) and called is not item
            if ast.unparse(node.func).startswith("checks.") or (known and refuses(called)):
                return True
    return False


def complaints(label, item, texts, kind):
    """Yield what is left out by the docstrings that speak for an item; the first is its own."""
    doc, text, part = texts[0], "\n".join(texts), sections(texts[0])
    if not doc or doc.startswith(f"{getattr(item, '__name__', '')}("):  # dataclasses and tuples write the latter
        yield f"{label} has no docstring"
        return
    arguments, returned = item.__annotations__, None  # of a TypedDict
    if inspect.isclass(item) and issubclass(item, enum.Enum):
        arguments = dict.fromkeys(item.__members__)
    elif not typing.is_typeddict(item):
        signature = inspect.signature(item)
        arguments = {name: argument.annotation for name, argument in signature.parameters.items() if name != "self"}
        returned = None if inspect.isclass(item) else signature.return_annotation
    known = entries(texts)
    for name, annotation in arguments.items():
        if not (name in known if kind == "formal" else re.search(rf"\b{name}(_j)?\b", text)):
            yield f"{label}: {name} is not explained"
        elif kind == "formal" and ARRAYS.search(str(annotation)) and not SHAPE.search(known[name]):
            yield f"{label}: {name} has no shape"
    said = part.get("Returns", "" if kind == "formal" else doc)
    if returned not in (None, "None", inspect.Signature.empty) and (kind != "method" or ARRAYS.search(str(returned))):
        if not (said if kind != "free" or "Returns" in part else re.search(r"\b[Rr]eturn", said)):
            yield f"{label}: it is not said what is returned"
        elif ARRAYS.search(str(returned)) and not SHAPE.search(said):
            yield f"{label}: what is returned has no shape"
    raising = "Raises" in part if kind == "formal" else re.search(r"[Rr]aise|errors are those of", doc)
    if refuses(item, kind != "method") and not raising:
        yield f"{label}: it is not said what is raised"
    needed = kind != "method" and (EQUATION.search(doc) or (kind == "formal" and label not in UNSOURCED))
    if needed and "References" not in part:
        yield f"{label} has no references"
    for home in homes(item) if inspect.isclass(item) else ():
        for name, member in vars(home).items():
            function = next((f for at in ("fget", "func", "__func__") if (f := getattr(member, at, None))), member)
            if not name.startswith("_") and inspect.isfunction(function):
                written = [getattr(vars(h).get(name), "__doc__", None) or "" for h in homes(item)]
                yield from complaints(f"{label}.{name}", function, ["\n".join(written).strip(), *texts], "method")


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_are_complete(package):
    if package in ("validation", "flds.nn"):
        pytest.importorskip("torchsde" if package == "validation" else "torch")
    found = [
        complaint for label, item, named in public(importlib.import_module(package))
        for complaint in complaints(label, item, docs(item), "formal" if named else "free")
    ]  # fmt: skip
    assert not found, "\n".join(["", *dict.fromkeys(found)])


def test_docstrings_of_pictures_are_complete():
    shared = plotting.__doc__  # explains what all of them take and return
    items = [item for name in plotting.__all__ if callable(item := getattr(plotting, name))]
    found = [one for item in items for one in complaints(item.__name__, item, [*docs(item), shared], "method")]
    assert not found, "\n".join(["", *found])


def unsaid(values: np.ndarray, size: int) -> np.ndarray:
    """Scale, as in F-(1).

    Parameters
    ----------
    values : array
    """
    if size < 1:
        raise ValueError("size must be positive")
    return values / size


class Unsaid:
    """A class that says nothing of its methods."""

    def scaled(self, values: np.ndarray) -> np.ndarray:
        return unsaid(values, 2)

    def checked(self, size: int) -> np.ndarray:
        """Return ones."""
        return np.ones(size)

    @property
    def size(self) -> int:
        return 1


def test_omissions_are_found():
    assert list(complaints("bad", unsaid, docs(unsaid), "formal")) == [
        "bad: values has no shape", "bad: size is not explained", "bad: it is not said what is returned",
        "bad: it is not said what is raised", "bad has no references",
    ]  # fmt: skip
    assert list(complaints("bad", Unsaid, docs(Unsaid), "free")) == [
        "bad.scaled has no docstring", "bad.checked: size is not explained",
        "bad.checked: what is returned has no shape", "bad.size has no docstring",
    ]  # fmt: skip
