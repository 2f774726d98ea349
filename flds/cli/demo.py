"""What the demo, `flds solve` without options, says at its end: what was learnt, and what to try next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flds.plotting.curves import chance

if TYPE_CHECKING:
    from flds.results.solution import Solution

_NEXT = (
    ("info {out}", "what is in the file"),
    ("solve --width 500 --out network.nc", "a network of finite width beside it"),
    ("solve --optimizer muon --out muon.nc", "another rule of training"),
    ("solve --target-error 0.5 --out limit.nc", "depth infinite as well, with 95 % intervals"),
    ("solve --data mine.npz --out mine.nc", "your own inputs and targets"),
)


def last_screen(solution: Solution, out: Path) -> str:
    """Return what was learnt by the run in the file `out`, and commands to go on with."""
    variance = solution.feature_variance[:, -1]
    moved = variance[-1] / variance[0]
    steps, loss, seen = solution.steps[-1], solution.loss, f"{solution.test_accuracy[-1]:.1%}"
    guess = chance(solution)
    lines = [
        "",
        f"A residual network of infinite width learnt handwritten digits in {steps} steps. Its loss fell from",
        f"{loss[0]:.2f} to {loss[-1]:.2f}, and it knows {seen} of digits that it has not seen (chance: {guess:.0%}).",
        f"Its features moved: their mean square at the output is {moved:.1f} times what it was.",
        "",
        "Next:",
    ]
    width = max(len(command.format(out=out)) for command, _ in _NEXT)
    lines += [f"  flds {command.format(out=out):{width}}  {what}" for command, what in _NEXT]
    return "\n".join(lines)
