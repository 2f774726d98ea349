"""Arrays that compiled code uses without counting who holds them.

Numba counts references atomically, some hundred times in a step of a few particles, which then takes ten times as long
as its arithmetic. Whoever calls a kernel holds its arrays anyway.
"""

from __future__ import annotations

from typing import Any

from llvmlite.ir import Constant
from numba import types
from numba.extending import intrinsic


def _without_owner(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return a value whose arrays, or those of the tuples in it, belong to nobody."""
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        for name in ("meminfo", "parent"):
            setattr(array, name, Constant(getattr(array, name).type, None))
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        kinds = list(kind.types)  # type: ignore[attr-defined]
        parts = [builder.extract_value(value, index) for index in range(len(kinds))]
        return context.make_tuple(
            builder, kind, [_without_owner(context, builder, *one) for one in zip(kinds, parts, strict=True)]
        )
    return value


_without_owner.compiled_by = _without_owner  # type: ignore[attr-defined]  # code that uses it depends on it


def _borrowed(typingctx, values):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _without_owner(context, builder, signature.args[0], arguments[0])

    return values(values), generate


# (values): the same arrays, in tuples of any depth, as long as somebody else holds them
borrowed: Any = intrinsic(_borrowed)
borrowed.compiled_by = _borrowed
