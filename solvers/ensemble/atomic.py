"""Words of memory that several threads of compiled code read and write at once."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from solvers.accelerate import part_kernel

Words = NDArray[np.int64]

# Counters stand so many words apart, since processors hand on whole lines of their caches.
APART = 16


def _place(context: Any, builder: Any, kind: Any, words: Any, index: Any) -> Any:
    array = context.make_array(kind)(context, builder, words)
    return cgutils.get_item_pointer(context, builder, kind, array, [index], wraparound=False)  # type: ignore[no-untyped-call]


_place.compiled_by = _place  # type: ignore[attr-defined]  # code that uses it depends on it


def _fetch_add(typingctx, words, index, amount):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        place = _place(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.atomic_rmw("add", place, arguments[2], "seq_cst")

    return types.int64(words, types.intp, types.int64), generate


def _load(typingctx, words, index):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        place = _place(context, builder, signature.args[0], arguments[0], arguments[1])
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(words, types.intp), generate


def _store(typingctx, words, index, value):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        place = _place(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store_atomic(arguments[2], place, "release", 8)
        return context.get_dummy_value()

    return types.void(words, types.intp, types.int64), generate


def _as_kernel(definition: Any) -> Any:
    """Return a function for compiled code, whose code depends on its definition."""
    made: Any = intrinsic(definition)
    made.compiled_by = definition
    return made


# (words, index, amount): add to a word and return what it was before
fetch_add = _as_kernel(_fetch_add)
# (words, index): what is written after is not read before
load = _as_kernel(_load)
# (words, index, value): what was written before is seen by whoever loads the value
store = _as_kernel(_store)

if hasattr(os, "sched_yield"):
    # () lets another thread run that could run here
    give_way: Any = types.ExternalFunction("sched_yield", types.intc())
else:

    @part_kernel
    def give_way() -> int:
        """Do nothing: there is nothing to give way with."""
        return 0
