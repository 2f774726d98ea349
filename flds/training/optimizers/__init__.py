"""Rules that turn gradients into steps, one file each, and the gradients that they see."""

from flds.training.optimizers.adam import Adam as Adam
from flds.training.optimizers.gradient import Gradient as Gradient
from flds.training.optimizers.muon import Muon as Muon
from flds.training.optimizers.optimizer import Optimizer as Optimizer
from flds.training.optimizers.sgd import PLAIN as PLAIN
from flds.training.optimizers.sgd import SGD as SGD

BUILT_IN: dict[str, type[Optimizer]] = {rule.__name__: rule for rule in (SGD, Adam, Muon)}
