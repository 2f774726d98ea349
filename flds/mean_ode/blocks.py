"""Residual units φ(h, z) of paper H with their derivatives: perceptrons, gated linear units, single matrices.

A block works on many units at once. States h and covectors b are (rows, D) arrays, one row for every sample (and
token); parameters z are dictionaries of arrays (*shape, units), units last. Everything returned for states is a sum
over units; everything returned for parameters is a sum over rows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from flds.training.activations import Activation, get_activation

Array = NDArray[np.float64]
Parameters = dict[str, Array]


class Block(ABC):
    """A residual unit φ(h, z) and its derivatives; subclass it to define one's own.

    States h and covectors b are (rows, D) float64 or float32, a row for every sample (and token); parameters z, and
    their changes, are dictionaries of arrays (*shape, units). D1 and D2 are the derivatives in h and in z;
    `validation.derivatives.check_block` compares them with differences of values.

    Attributes
    ----------
    name : str
        How the block is called in results.
    flipped : tuple of str
        Parameters whose common change of sign changes that of φ, for draws in antithetic pairs.
    tokenwise : bool
        Whether rows are independent of each other. If not, states are (samples, tokens, D).

    References
    ----------
    Paper H, eqs. (1), (7) and (9), and for the tangent ODE (18), (19) and (21).
    """

    name: str = ""
    flipped: tuple[str, ...] = ()
    tokenwise: ClassVar[bool] = True

    @abstractmethod
    def shapes(self, dimension: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter of one unit, by name, for D = `dimension`."""

    @abstractmethod
    def deviations(self, dimension: int) -> dict[str, float]:
        """Return the default standard deviation of the entries of each parameter, by name, for D = `dimension`."""

    @abstractmethod
    def rates(self, dimension: int, deviations: dict[str, float]) -> dict[str, float]:
        """Return the default learning rate of each parameter, by name, for D = `dimension` and these `deviations`."""

    def settings(self) -> dict[str, Any]:
        """Return the name and what the block was made with, as it is saved with a result."""
        plain = {key: value for key, value in vars(self).items() if isinstance(value, (str, int, float, bool))}
        rho = getattr(self, "rho", None)
        return {"name": self.name, **plain} | ({"activation": rho.name} if isinstance(rho, Activation) else {})

    @abstractmethod
    def value(self, h: Array, z: Parameters) -> Array:
        """Return Σ_j φ(h, z_j), in the shape of h."""

    @abstractmethod
    def pull(self, h: Array, b: Array, z: Parameters) -> tuple[Array, Parameters]:
        """Return Σ_j D1φ(h, z_j)ᵀ b, in the shape of h, and D2φ(h, z_j)ᵀ b for every unit, in the shapes of z."""

    def covector(self, h: Array, b: Array, z: Parameters) -> Array:
        """Return Σ_j D1φ(h, z_j)ᵀ b alone, in the shape of h."""
        return self.pull(h, b, z)[0]

    def descend(self, h: Array, b: Array, z: Parameters, steps: dict[str, float]) -> Array:
        """Return Σ_j D1φ(h, z_j)ᵀ b as `pull` does, and move z in place by −`steps`, by name, times D2φ(h, z_j)ᵀ b.

        A block that overrides it, to be faster, is asked for pass and step at once where the rule is plain gradient
        descent; its `covector` should then round as this does.
        """
        back, gradient = self.pull(h, b, z)
        for name, change in gradient.items():
            if steps[name]:
                z[name] -= np.multiply(change, steps[name], out=change if change.flags.writeable else None)
        return back

    def tangent(self, h: Array, z: Parameters, change: Parameters) -> Array:
        """Return Σ_j D2φ(h, z_j) change_j, in the shape of h.

        Only the tangent ODE needs it; raises NotImplementedError where a block has none.
        """
        raise NotImplementedError(f"the block {self.name!r} has no method tangent, which the tangent ODE needs")

    def pull_tangent(self, h: Array, b: Array, z: Parameters, change: Parameters) -> tuple[Array, Parameters]:
        """Return Σ_j D1 ⟨b, D2φ(h, z_j) change_j⟩, in the shape of h, and D2φ(h, z_j)ᵀ b as `pull` does.

        Only the tangent ODE needs it; raises NotImplementedError where a block has none.
        """
        raise NotImplementedError(f"the block {self.name!r} has no method pull_tangent, which the tangent ODE needs")


def balanced_rate(dimension: int, deviation: float) -> float:
    """Return η_u = D min(1, D/σ_v²), with which u moves the output as much as v does (H Theorem 3)."""
    alpha = max(deviation / math.sqrt(dimension), 1.0)
    return dimension / alpha / alpha


class TwoLayerPerceptron(Block):
    """φ(h, (u, v)) = v ρ(u·h/D), with u and v held as (D, units).

    Parameters
    ----------
    activation : str or Activation
        ρ; the tangent ODE needs its second derivative.

    Raises
    ------
    ValueError, TypeError
        If there is no such activation.

    References
    ----------
    Paper H, eqs. (2) and (24), and Theorem 3 for the learning rates.
    """

    name = "two_layer_perceptron"
    flipped = ("v",)

    def __init__(self, activation: str | Activation = "tanh") -> None:
        self.rho = get_activation(activation)

    def shapes(self, dimension: int) -> dict[str, tuple[int, ...]]:
        return {"u": (dimension,), "v": (dimension,)}

    def deviations(self, dimension: int) -> dict[str, float]:
        return {"u": math.sqrt(dimension), "v": math.sqrt(dimension)}

    def rates(self, dimension: int, deviations: dict[str, float]) -> dict[str, float]:
        """η_u = D min(1, D/σ_v²) and η_v = D: contributions of u and v are balanced (H Theorem 3)."""
        return {"u": balanced_rate(dimension, deviations["v"]), "v": float(dimension)}

    def value(self, h: Array, z: Parameters) -> Array:
        kernels = self.kernels(h, z)
        if kernels is None:
            return self.rho.value((h / h.shape[1]) @ z["u"]) @ z["v"].T
        out = np.zeros(h.shape, h.dtype)
        kernels.value(h / h.shape[1], z["u"], z["v"], 0, z["u"].shape[1], out)
        return out

    def pull(self, h: Array, b: Array, z: Parameters) -> tuple[Array, Parameters]:
        rho, slope = self.rho.with_slope((h / h.shape[1]) @ z["u"])
        slope *= (b / h.shape[1]) @ z["v"]
        return slope @ z["u"].T, {"u": h.T @ slope, "v": b.T @ rho}

    def covector(self, h: Array, b: Array, z: Parameters) -> Array:
        if self.kernels(h, z) is None:
            return super().covector(h, b, z)
        return self.descend(h, b, z, {"u": 0.0, "v": 0.0})  # the compiled pass, in which nothing moves

    def descend(self, h: Array, b: Array, z: Parameters, steps: dict[str, float]) -> Array:
        kernels = self.kernels(h, z)
        if kernels is None:
            return super().descend(h, b, z, steps)
        out, dimension = np.zeros(h.shape, h.dtype), h.shape[1]
        all_units = 0, z["u"].shape[1]
        kernels.descend(h / dimension, b / dimension, z["u"], z["v"], *all_units, steps["u"], steps["v"], out)
        return out

    def kernels(self, h: Array, z: Parameters) -> ModuleType | None:
        """Return the compiled passes where they apply: they know this very φ with tanh, and one precision for all."""
        if type(self) is not TwoLayerPerceptron or self.rho.value is not np.tanh:
            return None
        same = all(a.dtype == h.dtype and a.strides[-1] == a.itemsize for a in z.values())
        if not same or h.dtype not in (np.float64, np.float32):
            return None
        from flds.mean_ode import perceptron_kernels  # Numba takes a second to import

        return perceptron_kernels

    def tangent(self, h: Array, z: Parameters, change: Parameters) -> Array:
        rho, slope = self.rho.with_slope((h / h.shape[1]) @ z["u"])
        slope *= (h / h.shape[1]) @ change["u"]
        return rho @ change["v"].T + slope @ z["v"].T

    def pull_tangent(self, h: Array, b: Array, z: Parameters, change: Parameters) -> tuple[Array, Parameters]:
        scaled = h / h.shape[1]
        inside = scaled @ z["u"]
        rho, slope = self.rho.with_slope(inside)
        readout = (b / h.shape[1]) @ z["v"]
        bent = slope * ((b / h.shape[1]) @ change["v"])
        bent += self.rho.curvature(inside) * (scaled @ change["u"]) * readout
        slope *= readout
        return bent @ z["u"].T + slope @ change["u"].T, {"u": h.T @ slope, "v": b.T @ rho}


class GatedLinearUnit(Block):
    """φ(h, (u, w, v)) = v ρ(w·h/D) (u·h/D), with u, w and v held as (D, units).

    Parameters
    ----------
    activation : str or Activation
        ρ of the gate; the tangent ODE needs its second derivative.

    Raises
    ------
    ValueError, TypeError
        If there is no such activation.

    References
    ----------
    N. Shazeer, "GLU variants improve transformer", arXiv:2002.05202, 2020; its scaling is that of H-(2).
    """

    name = "gated_linear_unit"
    flipped = ("v",)

    def __init__(self, activation: str | Activation = "silu") -> None:
        self.rho = get_activation(activation)

    def shapes(self, dimension: int) -> dict[str, tuple[int, ...]]:
        return {"u": (dimension,), "w": (dimension,), "v": (dimension,)}

    def deviations(self, dimension: int) -> dict[str, float]:
        return dict.fromkeys(("u", "w", "v"), math.sqrt(dimension))

    def rates(self, dimension: int, deviations: dict[str, float]) -> dict[str, float]:
        inner = balanced_rate(dimension, deviations["v"])
        return {"u": inner, "w": inner, "v": float(dimension)}

    def value(self, h: Array, z: Parameters) -> Array:
        scaled = h / h.shape[1]
        return (self.rho.value(scaled @ z["w"]) * (scaled @ z["u"])) @ z["v"].T

    def pull(self, h: Array, b: Array, z: Parameters) -> tuple[Array, Parameters]:
        scaled = h / h.shape[1]
        linear, (gate, slope) = scaled @ z["u"], self.rho.with_slope(scaled @ z["w"])
        readout = (b / h.shape[1]) @ z["v"]
        through, opening = readout * gate, readout * linear * slope
        back = through @ z["u"].T + opening @ z["w"].T
        return back, {"u": h.T @ through, "w": h.T @ opening, "v": b.T @ (linear * gate)}

    def tangent(self, h: Array, z: Parameters, change: Parameters) -> Array:
        scaled = h / h.shape[1]
        linear, (gate, slope) = scaled @ z["u"], self.rho.with_slope(scaled @ z["w"])
        bent = (scaled @ change["u"]) * gate + linear * slope * (scaled @ change["w"])
        return (linear * gate) @ change["v"].T + bent @ z["v"].T

    def pull_tangent(self, h: Array, b: Array, z: Parameters, change: Parameters) -> tuple[Array, Parameters]:
        scaled, inside = h / h.shape[1], h @ z["w"] / h.shape[1]
        linear, (gate, slope) = scaled @ z["u"], self.rho.with_slope(inside)
        readout, readout_change = (b / h.shape[1]) @ z["v"], (b / h.shape[1]) @ change["v"]
        linear_change, inside_change = scaled @ change["u"], scaled @ change["w"]
        through, opening = readout * gate, readout * linear * slope
        through_change = readout_change * gate + readout * slope * inside_change
        opening_change = (readout_change * linear + readout * linear_change) * slope
        opening_change += readout * linear * self.rho.curvature(inside) * inside_change
        back = through_change @ z["u"].T + through @ change["u"].T
        back += opening_change @ z["w"].T + opening @ change["w"].T
        return back, {"u": h.T @ through, "w": h.T @ opening, "v": b.T @ (linear * gate)}


class _SingleMatrix(Block):
    """A unit with one matrix, held as (input, output, units)."""

    def __init__(self, activation: str | Activation = "tanh") -> None:
        self.rho = get_activation(activation)

    def shapes(self, dimension: int) -> dict[str, tuple[int, ...]]:
        return {"W": (dimension, dimension)}

    def deviations(self, dimension: int) -> dict[str, float]:
        return {"W": 1 / math.sqrt(dimension)}

    def rates(self, dimension: int, deviations: dict[str, float]) -> dict[str, float]:
        return {"W": 1.0}


class MatrixAfterActivation(_SingleMatrix):
    """φ(h, W) = W ρ(h), with W held as (input, output, units); the Mean ODE and the tangent ODE agree.

    Parameters
    ----------
    activation : str or Activation
        ρ.

    Raises
    ------
    ValueError, TypeError
        If there is no such activation.

    References
    ----------
    Paper H, § 2.1.
    """

    name = "matrix_after_activation"
    flipped = ("W",)

    def value(self, h: Array, z: Parameters) -> Array:
        return self.rho.value(h) @ z["W"].sum(axis=-1)

    def pull(self, h: Array, b: Array, z: Parameters) -> tuple[Array, Parameters]:
        rho, slope = self.rho.with_slope(h)
        gradient = np.broadcast_to((rho.T @ b)[..., None], z["W"].shape)
        return slope * (b @ z["W"].sum(axis=-1).T), {"W": gradient}

    def tangent(self, h: Array, z: Parameters, change: Parameters) -> Array:
        return self.value(h, change)

    def pull_tangent(self, h: Array, b: Array, z: Parameters, change: Parameters) -> tuple[Array, Parameters]:
        return self.pull(h, b, change)


class MatrixBeforeActivation(_SingleMatrix):
    """φ(h, W) = ρ(W h), with W held as (input, output, units).

    If ρ is not odd, E φ(h, W_0) is not zero and there is no tangent ODE.

    Parameters
    ----------
    activation : str or Activation
        ρ; the tangent ODE needs its second derivative.

    Raises
    ------
    ValueError, TypeError
        If there is no such activation.

    References
    ----------
    Paper H, § 2.1.
    """

    name = "matrix_before_activation"

    def __init__(self, activation: str | Activation = "tanh") -> None:
        super().__init__(activation)
        points = np.linspace(0.1, 3, 7)
        self.flipped = ("W",) if np.allclose(self.rho.value(points), -self.rho.value(-points), atol=1e-12) else ()

    def value(self, h: Array, z: Parameters) -> Array:
        return self.rho.value(apply(h, z["W"])).sum(axis=-1)

    def pull(self, h: Array, b: Array, z: Parameters) -> tuple[Array, Parameters]:
        slope = self.rho.with_slope(apply(h, z["W"]))[1]
        slope *= b[..., None]
        return apply_transposed(slope, z["W"]), {"W": outer(h, slope)}

    def tangent(self, h: Array, z: Parameters, change: Parameters) -> Array:
        return (self.rho.with_slope(apply(h, z["W"]))[1] * apply(h, change["W"])).sum(axis=-1)

    def pull_tangent(self, h: Array, b: Array, z: Parameters, change: Parameters) -> tuple[Array, Parameters]:
        inside = apply(h, z["W"])
        bent = self.rho.curvature(inside) * apply(h, change["W"])
        bent *= b[..., None]
        slope = self.rho.with_slope(inside)[1]
        slope *= b[..., None]
        return apply_transposed(bent, z["W"]) + apply_transposed(slope, change["W"]), {"W": outer(h, slope)}


def apply(h: Array, matrices: Array) -> Array:
    """Return h times every matrix: (…, D) and (D, E, units) to (…, E, units)."""
    return (h @ matrices.reshape(len(matrices), -1)).reshape(*h.shape[:-1], *matrices.shape[1:])


def apply_transposed(values: Array, matrices: Array) -> Array:
    """Return the sum over units of values, (…, E, units), times the transposed matrices, (…, D)."""
    return values.reshape(*values.shape[:-2], -1) @ matrices.reshape(len(matrices), -1).T


def outer(h: Array, values: Array) -> Array:
    """Return Σ over rows of h ⊗ values: (…, D) and (…, E, units) to (D, E, units)."""
    rows = h.reshape(-1, h.shape[-1])
    return (rows.T @ values.reshape(len(rows), -1)).reshape(h.shape[-1], *values.shape[-2:])
