"""The phase diagram of paper H for ResNets of two-layer perceptrons: which regime a configuration lies in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flds.mean_ode.blocks import balanced_rate
from solvers import checks

# Regimes meet where scales agree up to a factor that the theory leaves open; within this one they count as equal.
_SAME_SCALE = 3.0
# What paper H read off its experiments: Fig. 2a for the depth, at step 100; Fig. 5a for the fluctuation, at step 10;
# Fig. 5b for the travel, at step 50.
DEPTH_ERROR = 0.15
FLUCTUATION = (0.3, 0.05, 0.4)
TRAVEL = 3.0


@dataclass(frozen=True)
class Regime:
    """Where a ResNet of two-layer perceptrons lies in the phase diagram of paper H, Fig. 4.

    Attributes
    ----------
    name : str
        "semi-complete" (σ_v ≪ √D), "complete" (σ_v ~ √D), "lazy ODE" (√D ≪ σ_v ≪ √(LM)) or "beyond the ODE"
        (σ_v ≳ √(LM): fluctuations of the first pass do not vanish; at σ_v ~ √(LM) an SDE is expected, § 3).
    alpha : float
        σ_v/√D.
    depth_error : float
        Predicted root mean square error of the outputs from finite depth, 0.15/L.
    sampling_error : float
        Predicted fluctuation of the outputs, (0.3 α √D + 0.05 √D + 0.4)/√(LM), H-(30) with the constants of Fig. 5a.
    travel : float
        Predicted root mean square travel of input weights after 50 steps, 3 min(1, 1/α), Fig. 5b. Measured there, it is
        about 2.2 where α ≪ 1 and 3.4/α where α ≫ 1.
    first_travel : float
        Its scale in the first step, min(α, 1/α), Theorem 3 (iii).
    residual_scale, recommended_residual_scale : float
        σ_v/(LM), and √D/(LM), the one scale of complete feature learning.
    recommended_rates : (float, float)
        (η_u, η_v) = (D min(1, D/σ_v²), D) for this σ_v; times LM they are the rates of the raw gradient, H-(25).
    advice : tuple of str
        What the theory says against this configuration, a sentence each.
    dimension, depth, hidden_width : int
        D, L and M.

    References
    ----------
    Paper H, Theorem 3, eqs. (25) and (30), Figs. 2, 4 and 5.
    """

    name: str
    alpha: float
    depth_error: float
    sampling_error: float
    travel: float
    first_travel: float
    residual_scale: float
    recommended_residual_scale: float
    recommended_rates: tuple[float, float]
    advice: tuple[str, ...]
    dimension: int
    depth: int
    hidden_width: int

    @property
    def boundaries(self) -> tuple[float, float, float]:
        """σ_v/√D where "complete" begins and ends, a factor of 3 around 1, and where "beyond the ODE" begins."""
        effective = self.depth * self.hidden_width
        return 1 / _SAME_SCALE, _SAME_SCALE, math.sqrt(effective / self.dimension)

    def lines(self) -> list[str]:
        """Return what was found as lines of plain text."""
        u, v = self.recommended_rates
        return [
            f"regime          {self.name} (sigma_v / sqrt(D) = {self.alpha:.3g})",
            f"depth error     {self.depth_error:.2g} of the outputs, root mean square",
            f"sampling error  {self.sampling_error:.2g} of the outputs, root mean square",
            f"travel          {self.travel:.2g} of input weights in all, {self.first_travel:.2g} in the first step",
            f"residual scale  sigma_v/(LM) = {self.residual_scale:.3g}; complete feature learning at "
            f"{self.recommended_residual_scale:.3g}, sigma_v = sqrt(D)",
            f"learning rates  eta_u = {u:.3g}, eta_v = {v:.3g} recommended for this sigma_v",
            *(f"advice          {line}" for line in self.advice),
        ]


def residual_regime(
    dimension: int,
    depth: int,
    hidden_width: int,
    *,
    sigma_u: float | None = None,
    sigma_v: float | None = None,
    learning_rates: tuple[float, float] | None = None,
) -> Regime:
    """Locate h_ℓ = h_{ℓ-1} + 1/(LM) Σ_j v_j ρ(u_j·h_{ℓ-1}/D), H-(24), in the phase diagram.

    Parameters
    ----------
    dimension, depth, hidden_width : int
        D, L and M.
    sigma_u, sigma_v : float, optional
        Standard deviations of the entries of u and v; default √D.
    learning_rates : (η_u, η_v), optional
        Default the recommended ones.

    Returns
    -------
    Regime
        Name, predicted errors, recommended scale and rates, and advice.

    Raises
    ------
    ValueError, TypeError
        If a size is not a positive integer, or a scale or rate is not a number of at least zero.

    References
    ----------
    Paper H, § 4, Theorems 3 and 4, Figs. 4 and 5.
    """
    dimension = checks.positive_integer("dimension", dimension)
    effective = checks.positive_integer("depth", depth) * checks.positive_integer("hidden_width", hidden_width)
    root = math.sqrt(dimension)
    spread_u = root if sigma_u is None else checks.positive_number("sigma_u", sigma_u, zero=True)
    spread_v = root if sigma_v is None else checks.positive_number("sigma_v", sigma_v, zero=True)
    alpha = spread_v / root
    if learning_rates is not None and np.shape(learning_rates) != (2,):
        raise ValueError(f"learning_rates must be a pair (η_u, η_v), got {checks.shown(learning_rates)}")
    if spread_v >= math.sqrt(effective):
        name = "beyond the ODE"
    elif alpha > _SAME_SCALE:
        name = "lazy ODE"
    else:
        name = "complete" if alpha >= 1 / _SAME_SCALE else "semi-complete"
    rates = (balanced_rate(dimension, spread_v), float(dimension))
    a, b, c = FLUCTUATION
    return Regime(
        name=name,
        alpha=alpha,
        depth_error=DEPTH_ERROR / depth,
        sampling_error=(a * alpha * root + b * root + c) / math.sqrt(effective),
        travel=TRAVEL * min(1.0, 1 / max(alpha, 1.0)),
        first_travel=alpha if alpha <= 1 else 1 / alpha,
        residual_scale=spread_v / effective,
        recommended_residual_scale=root / effective,
        recommended_rates=rates,
        advice=tuple(_advice(name, alpha, dimension, effective, spread_u, learning_rates, rates)),
        dimension=dimension,
        depth=int(depth),
        hidden_width=int(hidden_width),
    )


def _advice(
    name: str,
    alpha: float,
    dimension: int,
    effective: int,
    spread_u: float,
    given: tuple[float, float] | None,
    rates: tuple[float, float],
) -> list[str]:
    root, lines = math.sqrt(dimension), []
    if alpha > _SAME_SCALE:
        lines.append(f"features hardly move: lower σ_v to √D = {root:.3g}")
    if name == "beyond the ODE":
        lines.append("fluctuations of the initial pass do not vanish: raise L or M, or lower σ_v")
    if name == "semi-complete":
        lines.append(f"units end as a function of u alone: raise σ_v to √D = {root:.3g} for more diverse features")
    if effective < _SAME_SCALE * dimension:
        lines.append(f"LM = {effective} is not large against D = {dimension}: the limit is not a good description")
    if not 1 / _SAME_SCALE <= spread_u / root <= _SAME_SCALE:
        lines.append(
            f"preactivations are of order {spread_u / root:.2g} and should be of order 1: σ_u = √D = {root:.3g}"
        )
    for label, rate, recommended in zip(("η_u", "η_v"), rates if given is None else given, rates, strict=True):
        checks.positive_number(f"learning rate {label}", rate, zero=True)
        if not recommended / _SAME_SCALE <= rate <= recommended * _SAME_SCALE:
            side = "small" if rate < recommended else "large"
            lines.append(f"{label} = {rate:.3g} is {side} against the balanced rate {recommended:.3g}")
    return lines
