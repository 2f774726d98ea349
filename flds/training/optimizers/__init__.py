"""Rules that turn gradients into steps, one file each, and the gradients that they see."""

from flds.training.optimizers.adam import Adam as Adam
from flds.training.optimizers.gradient import Gradient as Gradient
from flds.training.optimizers.muon import Muon as Muon
from flds.training.optimizers.optimizer import Optimizer as Optimizer
from flds.training.optimizers.sgd import PLAIN as PLAIN
from flds.training.optimizers.sgd import SGD as SGD
from flds.training.optimizers.trial import try_rule

BUILT_IN: dict[str, type[Optimizer]] = {rule.__name__: rule for rule in (SGD, Adam, Muon)}


def is_own(rule: Optimizer) -> bool:
    """Whether a rule is not built in."""
    return type(rule) not in BUILT_IN.values()


def checked_own(name: str, rule: Optimizer, matrix: bool) -> None:
    """Try a rule of one's own, for a matrix or for vectors, as `try_rule` does; one that is built in needs no trial."""
    if is_own(rule):
        try_rule(name, rule, matrix)
