"""Plain NumPy twins of the compiled and lazy code, as close to the formulas as possible."""

from __future__ import annotations

import itertools

import numpy as np

MASK = 2**64 - 1


def mix64(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def increment(key: int) -> int:
    """The increment of the sequence of a key, after the published rule for SplitMix64."""
    odd = mix64((key + 0x9E3779B97F4A7C15) & MASK) | 1
    return odd ^ 0xAAAAAAAAAAAAAAAA if bin(odd ^ (odd >> 1)).count("1") < 24 else odd


def normals(key: int, count: int, pairs: int) -> np.ndarray:
    """Normals of one block: words of SplitMix64, and the transform of Box and Muller in NumPy's functions."""
    step = increment(key)
    words = np.array([mix64((key + index * step) & MASK) for index in range(1, count + 1)], np.uint64)
    first, second = words.reshape(-1, pairs, 2).transpose(2, 0, 1)
    radius = np.sqrt(-2 * np.log(((first >> np.uint64(12)).astype(float) + 0.5) / 2**52))
    angle = (np.ascontiguousarray(second).view(np.int64) >> np.int64(11)) / 2**53 * np.pi / 2
    cosine = np.where(second & np.uint64(1), -1, 1) * np.cos(angle)
    exchange = (second & np.uint64(2)) != 0
    one = np.where(exchange, np.sin(angle), cosine)
    other = np.where(exchange, cosine, np.sin(angle))
    return np.stack([radius * one, radius * other], axis=1).ravel()


def dense_outputs(problem, width, depth, seeds, backward_weights="tied", rng_seed=0, draws=None, residual="pre"):
    """f^(0) … f^(K) of `seeds` dense ResNets, F-(1) or Proposition 1, (seeds, K + 1, samples, outputs).

    Backpropagation is written out by hand, and all seeds are trained at once.
    """
    rng = np.random.default_rng(rng_seed)
    d, m, tau = problem.x.shape[1], problem.outputs, problem.horizon / depth
    u = rng.standard_normal((seeds, width, d))
    v = rng.standard_normal((seeds, m, width))
    w = rng.standard_normal((depth, seeds, width, width))
    if draws is not None:  # (width, d), (outputs, width), (depth, width, width) of one network
        u, v, w = draws[0][None], draws[1][None], draws[2][:, None]
    back = w
    if backward_weights == "independent":
        back = rng.standard_normal(w.shape) if draws is None else draws[3][:, None]
    scale, post = np.sqrt(tau / width), residual == "post"
    phi, dphi = problem.phi.value, problem.phi.derivative

    def forward(x):
        entry = np.einsum("snd,bd->sbn", u, x) / np.sqrt(d)
        states, branches = [phi(entry) if post else entry], []
        for weight in w:
            h, transposed = states[-1], weight.transpose(0, 2, 1)
            branches.append(h @ transposed / np.sqrt(width) if post else h)
            states.append(h + (np.sqrt(tau) * phi(branches[-1]) if post else scale * phi(h) @ transposed))
        return entry, branches, states, states[-1] @ v.transpose(0, 2, 1) / width

    outputs = []
    for step in range(problem.steps + 1):
        outputs.append(forward(problem.x)[-1])
        if step == problem.steps:
            break
        batch = problem.batches[step]
        x, y = problem.x[batch], problem.y[batch]
        entry, branches, states, f = forward(x)
        slopes = np.stack([problem.loss_function.derivative(one, y) for one in f]) / len(batch)
        g = slopes @ v / width  # ∂loss/∂h_L
        rate = problem.groups["hidden"].rates[step] * width
        new_v = v - rate * slopes.transpose(0, 2, 1) @ states[-1] / width
        for layer in reversed(range(depth)):
            h = states[layer]
            if post:  # through φ first, and then through the matrix
                through = dphi(branches[layer]) * g
                change = rate * scale * through.transpose(0, 2, 1) @ h
                g = g + scale * (through @ back[layer])
            else:
                change = rate * scale * g.transpose(0, 2, 1) @ phi(h)
                g = g + scale * dphi(h) * (g @ back[layer])
            w[layer] -= change
            if back is not w:
                back[layer] -= change
        g = g * dphi(entry) if post else g
        v = new_v
        u = u - rate * np.einsum("sbn,bd->snd", g, x) / np.sqrt(d)
    return np.stack(outputs, axis=1)


def mean_field_path(x, times, dw, drift, diffusion, psi, scheme="euler_maruyama", slope=None):
    """Particles (N, D) at the end of `times`; dw is (steps, N, K), and b, s and ψ take all particles at once.

    s(t, x, m) is (N, D, K). For Milstein, slope(t, x, m) is ∂s_i/∂x_i, (N, D), of a diagonal s.
    """

    def change(t, dt, x, w):
        m = psi(t, x).mean(0)
        b = drift(t, x, m)
        if scheme == "tamed_euler":
            b = b / (1 + abs(dt) * np.linalg.norm(b, axis=1, keepdims=True))
        return b * dt + np.einsum("pik,pk->pi", diffusion(t, x, m), w)

    for step, (t, following) in enumerate(itertools.pairwise(times)):
        w, dt = dw[step], following - t
        if scheme == "heun":
            first = change(t, dt, x, w)
            x = x + (first + change(following, dt, x + first, w)) / 2
        else:
            moved = x + change(t, dt, x, w)
            if scheme == "milstein":
                m = psi(t, x).mean(0)
                s = np.einsum("pii->pi", diffusion(t, x, m))
                moved += s * slope(t, x, m) * (w**2 - abs(dt)) / 2
            x = moved
    return x
