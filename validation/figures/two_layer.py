"""How far branches of two layers move features, against depth: a claim of paper F's later version, measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from solvers.results.solution import Variable
from validation.figures.drawing import Drawing, Request
from validation.two_layer import RATE, TARGET, draw_movements, movements

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "quick": {
        "movement": {"depths": (4, 16, 64, 128), "particles": 1000, "seeds": 8,
                     "dense_depths": (4, 16), "width": 256, "networks": 16},
    },
    "full": {
        "movement": {"depths": (4, 16, 64, 128, 256, 512), "particles": 4000, "seeds": 12,
                     "dense_depths": (4, 16, 64), "width": 1024, "networks": 8},
    },
}  # fmt: skip
_NAMES = {"s = √τ": "root", "s = √τ, inner rate × √L": "larger_inner_rate", "s = τ, rates × L": "complete"}


def movement(request: Request) -> Drawing:
    """Paper F, later version: change of h_L in one step against depth, with and without an inner rate larger by √L.

    Branches of two layers, tanh, T = 1; limits of both kinds of weights, and dense networks.
    """
    sizes = request.pick(SIZES, "movement")
    depths, few = sizes["depths"], sizes["dense_depths"]
    limit = movements("limit", depths, sizes["particles"], sizes["seeds"], 1_000 * request.seed)
    request.say(f"limits at {len(depths)} depths are done, dense networks of width {sizes['width']} follow")
    dense = movements("dense", few, sizes["width"], sizes["networks"], 1_000 * request.seed + 500)
    fields = {
        "depths": Variable(("depth",), np.array(depths), "depth L of limits"),
        "dense_depths": Variable(("dense_depth",), np.array(few), "depth L of dense networks"),
    }
    for prefix, found in (("", limit), ("dense_", dense)):
        for (scaling, weights), squares in found.items():
            label = f"E dh² over L'², {scaling}, {weights} weights" + (", dense networks" if prefix else "")
            fields[f"{prefix}{_NAMES[scaling]}_{weights}"] = Variable(
                (f"{prefix}seed", f"{prefix}depth"), squares, label
            )
    settings = sizes | {"learning_rate": RATE, "target": TARGET, "activation": "tanh"}
    return Drawing(draw_movements(limit, dense, depths, few), fields, settings)
