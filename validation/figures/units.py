"""Finite networks of paper H, as its figures train them."""

from __future__ import annotations

from typing import Any

import torch

from flds.mean_ode.problem import MeanFieldProblem
from validation.unit_networks import UnitRuns, train_units


def train(problem: MeanFieldProblem, **options: Any) -> UnitRuns:
    """Call `train_units` on one thread: layers are small, and to wake another takes longer than their products."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train_units(problem, **options)
    finally:
        torch.set_num_threads(threads)
