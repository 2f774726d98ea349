"""Plant known faults in a copy of the source, one at a time, and see which the tests catch.

    python -m tests.planted_faults [NAME ...] [--source FOLDER] [--all]

Each fault is a change of one line. It is caught if a test fails; the tests run are those that are meant to catch it,
or with --all the whole suite. Exit status 1 if one is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("flds", "solvers", "validation", "tests", "pyproject.toml", "README.md", "docs", "notebooks", "CHANGELOG.md")
# Seconds after which tests that hang are stopped; a fault that makes them hang is not caught.
PATIENCE = 900


@dataclass(frozen=True)
class Fault:
    """One line of a file that is to be another, and the tests that should fail then."""

    name: str
    file: str
    line: str
    wrong: str
    tests: str


# Signs, indices, factors, dropped terms and exchanged arguments, in every room.
FAULTS = (
    Fault("response with the wrong sign", "solvers/matrices/reveal.py",
          "return response - overlap",
          "return -response - overlap",
          "tests/solvers/test_weight_operator.py"),
    Fault("fresh images without their projection", "solvers/matrices/reveal.py",
          "return response - overlap",
          "return response",
          "tests/solvers/test_weight_operator.py"),
    Fault("probes without the response of what they add", "solvers/matrices/reveal.py",
          "met = sizes.ratio**2 * inner(e, (codomain.images,), vectors).T",
          "met = 0.0",
          "tests/solvers/test_weight_operator.py"),
    Fault("probes whose noise keeps what is known of it", "solvers/matrices/reveal.py",
          "pull += share * (met - factor @ inner(images, (drawn,), codomain.directions))",
          "pull += share * met",
          "tests/solvers/test_weight_operator.py"),
    Fault("directions projected once", "solvers/matrices/reveal.py",
          "((inverse, rest[kept]), (-inverse @ overlap[kept], directions))",
          "((inverse, rest[kept]),)",
          "tests/solvers/test_weight_operator.py"),
    Fault("learned part nine tenths of itself", "solvers/matrices/reveal.py",
          "pull = sizes.ratio * (known @ learned)",
          "pull = 0.9 * sizes.ratio * (known @ learned)",
          "tests/solvers/test_weight_operator.py"),
    Fault("matched noise pushed towards what it should avoid", "solvers/matrices/matched.py",
          "amounts[:, kept] = -inverse @ (rows.T.copy() @ solve)",
          "amounts[:, kept] = inverse @ (rows.T.copy() @ solve)",
          "tests/solvers/test_weight_operator.py tests/flds/test_training.py"),
    Fault("compiled functions told apart without what they hold", "solvers/identity.py",
          "            yield from _value(cell.cell_contents, seen)",
          "            yield type(cell.cell_contents).__name__",
          "tests/solvers/test_identity.py"),
    Fault("functions counted from one in every process", "solvers/kernel_cache.py",
          "itertools.count(secrets.randbits(62))",
          "itertools.count(1)",
          "tests/solvers/test_identity.py"),
    Fault("joint noise without its covariance", "solvers/sde/schemes/terms.py",
          "diffusion(s.t, s.x, s.m, s.field, s.args), np.dot(s.factor, s.dw))",
          "diffusion(s.t, s.x, s.m, s.field, s.args), s.dw)",
          "tests/flds/test_initialisation.py tests/solvers/test_schemes.py"),
    Fault("one value of a diffusion that differs between particles", "solvers/sde/schemes/terms.py",
          'equation.noise == "additive" and not _own_field(equation, form)',
          'equation.noise in ("additive", "diagonal")',
          "tests/solvers/test_mean_field.py"),
    Fault("second moments of the untrained network taken for first ones", "flds/training/untrained_equations.py",
          "return image * image, h * h",
          "return image * image, h",
          "tests/flds/test_initialisation.py"),
    Fault("the dense matrix exchanged with its transpose", "solvers/matrices/dense.py",
          "images = self.inputs.multiply(gradients, self.backward_weights)",
          "images = self.inputs.multiply(gradients, self.backward_weights, transposed=True)",
          "tests/flds/test_law.py tests/solvers/test_weight_operator.py tests/validation/test_exact.py"),
    Fault("pivots of earlier columns forgotten", "solvers/matrices/cholesky.py",
          "there[count] = (gram[below, row] - product) / pivot",
          "there[count] = gram[below, row] / pivot",
          "tests/solvers/test_cholesky.py"),
    Fault("increments scaled by the step", "solvers/ensemble/brownian.py",
          "return out * math.sqrt(self.dt)", "return out * self.dt",
          "tests/solvers/test_brownian.py tests/solvers/test_mean_field.py"),
    Fault("refined noise not scaled", "solvers/ensemble/random.py",
          "scale = size / math.sqrt(np.float64(refinement))", "scale = size / np.float64(refinement)",
          "tests/solvers/test_random.py tests/solvers/test_brownian.py"),
    Fault("Milstein's correction doubled", "solvers/sde/schemes/milstein.py",
          "out[i, p] += 0.5 * here[i, p] * slope", "out[i, p] += here[i, p] * slope",
          "tests/solvers/test_schemes.py tests/solvers/test_convergence.py"),
    Fault("noise of the wrong interval backward in time", "solvers/sde/march.py",
          "layer = step if grid.dt > 0 else last - step", "layer = step",
          "tests/solvers/test_mean_field.py tests/solvers/test_schemes.py"),
    Fault("noise of the wrong interval backward in time, step by step", "solvers/sde/walk.py",
          "layer = now.step if self.dt > 0 else steps - 1 - now.step", "layer = now.step",
          "tests/solvers/test_march.py"),
    Fault("a stage opened before the last share of the one before is done", "solvers/sde/march.py",
          "if fetch_add(control, DONE, 1) + 1 == (index + 1) * shares:",
          "if fetch_add(control, DONE, 1) + 2 == (index + 1) * shares:",
          "tests/solvers/test_march.py"),
    Fault("threads that wait for one that failed", "solvers/sde/walk.py",
          "                close(control)", "                pass",
          "tests/solvers/test_march.py"),
    Fault("the field between two times read at the wrong one", "solvers/sde/field.py",
          "value = (1 - weight) * value[after - 1] + weight * value[after]",
          "value = weight * value[after - 1] + (1 - weight) * value[after]",
          "tests/solvers/test_schemes.py"),
    Fault("input gradients divided by d", "flds/training/network.py",
          "batch=batch, divisor=root)", "batch=batch, divisor=root**2)",
          "tests/flds/test_training.py tests/validation/test_exact.py"),
    Fault("the derivative of φ at the wrong argument", "flds/training/branches/single_matrix.py",
          "slope = layer.residual.map(layer.phi.derivative, h)", "slope = layer.residual.map(layer.phi.derivative, g)",
          "tests/flds/test_training.py tests/validation/test_exact.py"),
    Fault("test inputs take the noise of training samples", "flds/training/records.py",
          "tests = range(problem.samples, problem.samples + len(problem.test_x))",
          "tests = range(len(problem.test_x))",
          "tests/flds/test_training.py tests/flds/test_invariance.py tests/flds/test_state.py "
          "tests/flds/test_solution.py"),
    Fault("half of the particles' bias taken off", "flds/limit/extrapolation.py",
          "/ (times - 1)", "/ times",
          "tests/flds/test_limit.py"),
    Fault("corrector with the weights of the predictor", "flds/mean_ode/depth.py",
          "3: (5 / 12, 8 / 12, -1 / 12)", "3: (23 / 12, -16 / 12, 5 / 12)",
          "tests/flds/test_mean_ode.py"),
    Fault("queries exchanged with keys on the way back", "flds/mean_ode/attention.py",
          "back = _Heads(_mix(scores, heads.k) / root, _gather(scores, heads.q) / root",
          "back = _Heads(_mix(scores, heads.q) / root, _gather(scores, heads.k) / root",
          "tests/flds/test_mean_ode.py tests/flds/test_mean_ode_passes.py tests/validation/test_mean_ode.py"),
    Fault("standard errors that are standard deviations", "flds/results/replicates.py",
          "samples.std(axis=0, ddof=1) / np.sqrt(len(samples))", "samples.std(axis=0, ddof=1)",
          "tests/flds/test_solution.py tests/flds/test_limit.py"),
    Fault("variance of g over depth the wrong way round", "flds/training/untrained.py",
          "depth - now.step + len(now.history) - 1, depth - now.step - 1, -1)",
          "now.step - len(now.history) + 1, now.step + 1)",
          "tests/flds/test_initialisation.py"),
    Fault("a sweep that is not read anew where a run has changed", "flds/sweeps/results.py",
          "return found, {run: mark for run, mark in there.items() if run.stat().st_ctime_ns < written}",
          "return found, there",
          "tests/flds/test_sweep_results.py"),
    Fault("recorded samples as counted coordinates", "flds/results/solution.py",
          'places: ClassVar[dict[str, str]] = {"step": "steps", "sample": "recorded_samples", "t": "depth_grid"}',
          'places: ClassVar[dict[str, str]] = {"step": "steps", "t": "depth_grid"}',
          "tests/flds/test_solution.py"),
    Fault("gradient kernels at the depths of features", "flds/results/kernels.py",
          'grid = solution.depth_grid[1:] if name == "gradient_kernel" else solution.depth_grid[:-1]',
          "grid = solution.depth_grid[:-1]",
          "tests/flds/test_solution.py tests/flds/test_plotting.py"),
    Fault("the vertex of a parabola on the wrong side", "flds/plotting/transfer.py",
          "vertex = b - 0.5 * top / bottom if bottom else b",
          "vertex = b + 0.5 * top / bottom if bottom else b",
          "tests/flds/test_plotting.py"),
    Fault("the method of a run chosen by free memory", "flds/training/method.py",
          "if load.dense_work() < sum(load.lazy_work()):",
          "if load.dense_work() < sum(load.lazy_work()) and dense_footprint(load).host < memory_of_rank():",
          "tests/test_peak_memory.py"),
    Fault("the wrong output drawn", "flds/plotting/curves.py",
          "return outputs[:, sample].reshape(len(outputs), -1)[:, output]",
          "return outputs[:, output].reshape(len(outputs), -1)[:, 0]",
          "tests/flds/test_plotting.py"),
    Fault("checkpoint of the step before", "flds/training/train.py",
          "kept.keep(network, recorder, step + 1)",
          "kept.keep(network, recorder, step)",
          "tests/test_killed_runs.py"),
    Fault("replicates that have ended left out of a checkpoint", "solvers/results/checkpoint.py",
          "groups = {**self._ended, name: state}",
          "groups = {name: state}",
          "tests/solvers/test_checkpoint.py"),
    Fault("rows appended that are there", "solvers/results/growing.py",
          "values = np.ascontiguousarray(item.values[column.rows :])",
          "values = np.ascontiguousarray(item.values[:new])",
          "tests/solvers/test_checkpoint.py"),
    Fault("rows written to the file of before", "solvers/results/growing.py",
          "file.truncate(self.end)",
          "file.truncate(0)",
          "tests/solvers/test_checkpoint.py"),
    Fault("lock that does not hold", "solvers/results/lock.py",
          "fcntl.LOCK_EX | fcntl.LOCK_NB",
          "fcntl.LOCK_SH | fcntl.LOCK_NB",
          "tests/solvers/test_checkpoint.py"),
    Fault("ranks that write their particles as the first ones", "solvers/results/arrays.py",
          "(row * spread.total + spread.first) * each",
          "(row * spread.total) * each",
          "tests/mpi/test_training.py"),
    Fault("noise of the first particles on every rank", "solvers/ensemble/mpi.py",
          "replace(noise, first=noise.first + self.first)",
          "noise",
          "tests/mpi/test_training.py"),
    Fault("an interrupt that comes on one rank alone", "solvers/ensemble/mpi.py",
          '"""Do nothing: an interrupt comes where all ranks hear of it, in their next sum."""',
          "self._interrupts.check()",
          "tests/mpi/test_training.py"),
    Fault("functions known by their names", "solvers/sde/kept.py",
          '{"sha256": fingerprint(getattr(equation, name))}',
          '{"sha256": name}',
          "tests/solvers/test_checkpoint.py"),
    Fault("sampler that begins anew on every rank", "solvers/sde/start.py",
          "_sample(self.given, self.seed, number)",
          "_sample(self.given, self.seed, number - held.start // STRETCH)",
          "tests/mpi/test_training.py"),
    Fault("taming that forgets the step", "solvers/sde/schemes/tamed_euler.py",
          "factor = dt / (1.0 + abs(dt) * largest * math.sqrt(total))",
          "factor = dt / (1.0 + largest * math.sqrt(total))",
          "tests/solvers/test_schemes.py"),
    Fault("bridges that cross too often", "solvers/sde/events/crossing.py",
          "exponent = 2.0 * (before - level)", "exponent = 1.0 * (before - level)",
          "tests/solvers/test_events.py"),
    Fault("jumps thinned by a rate without its bound", "solvers/sde/events/jumps.py",
          "u[p] * bound < rates[p]", "u[p] < rates[p]",
          "tests/solvers/test_events.py"),
    Fault("folded once", "solvers/sde/events/reflecting.py",
          "else high - (beyond - size)", "else low + (beyond - size)",
          "tests/solvers/test_events.py"),
    Fault("resets in the last step that add up", "solvers/sde/events/reset.py",
          "new[1, :] = 0.0", "pass",
          "tests/solvers/test_events.py"),
    Fault("what particles carry begun anew where a run goes on", "solvers/sde/start.py",
          "return np.concatenate([x, *(row[None] for row in rows)])",
          "return np.concatenate([x, events.initial(x, t)])",
          "tests/solvers/test_events.py"),
    Fault("the drift of an implicit step taken where it starts", "solvers/sde/schemes/newton.py",
          "here = drift(s.t + s.dt, y, s.m", "here = drift(s.t, y, s.m",
          "tests/solvers/test_stiff_schemes.py"),
    Fault("SRA1 with a change of spread that is too small", "solvers/sde/schemes/sra1.py",
          "(second[i, p] - first[i, p]) / _TIME", "(second[i, p] - first[i, p])",
          "tests/solvers/test_stiff_schemes.py"),
    Fault("integrals of motions with too little noise", "solvers/ensemble/random.py",
          "length / math.sqrt(12.0)", "length / 12.0",
          "tests/solvers/test_stiff_schemes.py"),
    Fault("paths between times that spread too far", "solvers/ensemble/random.py",
          "0.5 * size * math.sqrt(end - begin)", "size * math.sqrt(end - begin)",
          "tests/solvers/test_stiff_schemes.py"),
    Fault("heat of a step without its square", "solvers/sde/schemes/baoab.py",
          "1.0 - keep * keep", "1.0 - keep",
          "tests/solvers/test_stiff_schemes.py"),
    Fault("named parameters in the order of the alphabet", "solvers/sde/coefficients.py",
          "lambda entries: args(*entries)", "lambda entries: args(*entries[::-1])",
          "tests/solvers/test_args.py"),
    Fault("moments that wait where a rate is zero", "flds/mean_ode/update.py",
          "if self.rule.plain and not self.rates[name]:",
          "if not self.rates[name]:",
          "tests/flds/test_own_rules.py"),
    Fault("steps of matrices without the power of depth", "flds/training/network.py",
          "yield Matrix(label, group, layer.matrices[name], *factors, width, dtype)",
          "yield Matrix(label, group, layer.matrices[name], self.scale, 1.0, width, dtype)",
          "tests/validation/test_rules.py"),
    Fault("gradients of matrices clipped without the branch scale", "flds/training/parameters.py",
          "return self.scale**2 * gradient.squares",
          "return gradient.squares",
          "tests/validation/test_rules.py"),
    Fault("vectors whose rules see gradients over the width", "flds/training/parameters.py",
          "self.ensemble.combine(whole, [(gradient.coefficients.T, gradient.right)])",
          "self.ensemble.combine(whole, [(gradient.coefficients.T / self.ensemble.particles, gradient.right)])",
          "tests/validation/test_rules.py"),
    Fault("vectors clipped with torch's norm", "flds/training/parameters.py",
          "return self.share * self.scale**2 * gradient.squares(",
          "return self.share * self.scale**2 / self.ensemble.particles * gradient.squares(",
          "tests/validation/test_rules.py"),
    Fault("Adam's matrices without the power of width", "flds/training/parameters.py",
          "number = float(self.width)",
          "number = float(self.width) ** 0.5",
          "tests/validation/test_rules.py"),
    Fault("weight decay times the width", "flds/training/parameters.py",
          "self.shrink(1.0 - rate * decay)",
          "self.shrink(1.0 - rate * decay / 2)",
          "tests/validation/test_rules.py"),
    Fault("momentum that averages", "flds/training/optimizers/momentum.py",
          "velocity = self.momentum * state[\"momentum\"] + gradient",
          "velocity = self.momentum * state[\"momentum\"] + (1 - self.momentum) * gradient",
          "tests/validation/test_rules.py"),
    Fault("Nesterov's momentum as the heavy ball", "flds/training/optimizers/momentum.py",
          "(gradient + self.momentum * velocity if self.nesterov else velocity)",
          "velocity",
          "tests/validation/test_rules.py"),
    Fault("decay that leaves fresh noise", "solvers/matrices/reveal.py",
          "terms = ((share * known, domain.images), (share * fresh, noise), (pull",
          "terms = ((share * known, domain.images), (fresh, noise), (pull",
          "tests/flds/test_optimizers.py tests/solvers/test_weight_operator.py"),
    Fault("decay that probes forget", "solvers/matrices/reveal.py",
          "pull = sizes.ratio * (known @ (learned - share * response))",
          "pull = sizes.ratio * (known @ (learned - response))",
          "tests/flds/test_optimizers.py tests/solvers/test_weight_operator.py"),
    Fault("what a rule remembers left out of states", "flds/training/network.py",
          "state |= parameter.state()",
          "state |= {}",
          "tests/flds/test_optimizers.py"),
    Fault("remembered arrays of matrices begun anew as these grow", "flds/training/parameters.py",
          "state[name] = _in_the_corner(state[name], array)",
          "state[name] = array if array.shape == np.shape(state[name]) else state[name]",
          "tests/flds/test_optimizers.py"),
    Fault("numbers that a rule remembers step for every stretch of units", "flds/mean_ode/update.py",
          "self._numbers[stretch.block, name, key] = number",
          "memory[key] = number",
          "tests/flds/test_mean_ode_passes.py"),
    Fault("responses of rectangular matrices without their shape", "solvers/matrices/reveal.py",
          "change = shifted(sizes.ratio * response,", "change = shifted(response,",
          "tests/solvers/test_rectangular.py"),
    Fault("fresh images of transposed matrices of size 1", "solvers/matrices/reveal.py",
          "fill(images, noise, draw, kept)",
          "sizes = type(sizes)(1.0, sizes.ratio); fill(images, noise, draw, kept)",
          "tests/solvers/test_rectangular.py"),
    Fault("what is learned without the shape of the matrix", "solvers/matrices/reveal.py",
          "pull = sizes.ratio * (known @ learned)", "pull = known @ learned",
          "tests/solvers/test_rectangular.py"),
    Fault("probes whose response lacks the shape of the matrix", "solvers/matrices/reveal.py",
          "met = sizes.ratio**2 * inner(", "met = sizes.ratio * inner(",
          "tests/solvers/test_rectangular.py"),
    Fault("gradients of rectangular matrices without their shape", "flds/training/network.py",
          "weights, batch, multiplier=shape)", "weights, batch)",
          "tests/validation/test_rules.py"),
    Fault("exponent 1 with the powers of ½ inside", "flds/training/network.py",
          "else (tau, 1.0)", "else (tau, root)",
          "tests/validation/test_rules.py"),
    Fault("exponent 1 with T/L once more inside", "flds/training/network.py",
          "else (tau, 1.0)", "else (tau, tau)",
          "tests/validation/test_rules.py"),
    Fault("gains and biases stepped without the power of depth", "flds/training/network.py",
          "home, layer.vectors[name], *factors, share)", "home, layer.vectors[name], self.scale, 1.0, share)",
          "tests/validation/test_rules.py"),
    Fault("biases clipped as if there were n of them", "flds/training/network.py",
          "share = home.particles / width", "share = 1.0",
          "tests/validation/test_rules.py"),
    Fault("norms pulled back without their projection", "flds/training/branches/normalization.py",
          "(a - states * met) / sizes", "a / sizes",
          "tests/flds/test_own_branches.py"),
    Fault("layer norms pulled back without the mean", "flds/training/branches/normalization.py",
          "(a - mean - states * met) / sizes", "(a - states * met) / sizes",
          "tests/flds/test_own_branches.py"),
    Fault("gradients of gains after the gains", "flds/training/branches/two_layer.py",
          "layer.residual.map(np.multiply, pulled, normalized.states)",
          "layer.residual.map(np.multiply, self._gained(pulled, layer), normalized.states)",
          "tests/flds/test_own_branches.py"),
    Fault("inner and outer matrices with the same noise", "flds/training/network.py",
          "replace(self.noise, part=index)", "replace(self.noise, part=0)",
          "tests/flds/test_branches.py"),
    Fault("matched noise inside branches left as it is drawn", "flds/training/network.py",
          "MatchedSampling(hidden, none)", "Sampling()",
          "tests/flds/test_branches.py"),
    Fault("what outer matrices are told by the inner one's group", "flds/training/groups.py",
          "value.get(group, value.get(ALL_MATRICES, default) if matrix else default)",
          "value.get(ALL_MATRICES if matrix and ALL_MATRICES in value else group, default)",
          "tests/flds/test_branches.py tests/validation/test_rules.py"),
    Fault("noise of devices on half of the circle", "solvers/ensemble/device/noise.py",
          "torch.bitwise_left_shift(second, 63, out=spare)", "spare.zero_()",
          "tests/solvers/test_particles.py"),
    Fault("particles of a device without those of the last group", "solvers/ensemble/device/particles.py",
          "        if whole < self.held:\n", "        if whole < 0:\n",
          "tests/solvers/test_particles.py"),
    Fault("memory of a device counted as that of the process", "flds/training/footprint.py",
          "    apart = has_memory(load.device)", "    apart = False",
          "tests/flds/test_device.py"),
    Fault("states that a run of another device cannot take over", "flds/training/network.py",
          'self.ensemble.put(self.input_weights, state["input_weights"])',
          'self.ensemble.put(self.input_weights, state["input_weights"][::-1])',
          "tests/flds/test_device.py"),
    Fault("gradients by A with the size of one side", "flds/nn/linear.py",
          "root = math.sqrt(layer.in_features * layer.out_features)", "root = float(layer.in_features)",
          "tests/nn/test_exact.py"),
    Fault("passes without gradients that are remembered", "flds/nn/linear.py",
          "remember = watched and self.training", "remember = self.training",
          "tests/nn/test_layer.py"),
    Fault("layers that draw the same noise in every pass", "flds/nn/sampled.py",
          "self.calls += self.operator.rank != before", "self.calls += 0",
          "tests/nn/test_law.py"),
    Fault("rates of vectors without the width", "flds/nn/groups.py",
          '"lr": rate * width', '"lr": rate',
          "tests/nn/test_groups.py"),
    Fault("decay that leaves the weights as they were drawn", "flds/nn/linear.py",
          "self.matrix.operator.share *= factor", "self.matrix.operator.share *= 1.0",
          "tests/nn/test_exact.py"),
    Fault("states of layers that draw their noise again", "flds/nn/sampled.py",
          "self.seed, self.calls = (int(number) for number in state[\"address\"])",
          "self.seed, self.calls = int(state[\"address\"][0]), 0",
          "tests/nn/test_layer.py"),
    Fault("noise of passes that are forgotten by place", "flds/nn/sampled.py",
          "Address(Stream.PROBE, int(backward), row_positions(rows))",
          "Address(Stream.PROBE, int(backward), tuple(range(len(rows))))",
          "tests/nn/test_layer.py"),
    Fault("what eval has shown kept for training", "flds/nn/sampled.py",
          "            self.operator.forget(mark)", "            pass",
          "tests/nn/test_layer.py"),
)  # fmt: skip


def planted(fault: Fault, tree: Path) -> str:
    """Plant a fault in a copy of the source, and return what the file was; raises ValueError if it has no such line."""
    path = tree / fault.file
    was = path.read_text()
    if was.count(fault.line) != 1:
        raise ValueError(f"{fault.file} has {was.count(fault.line)} times what {fault.name!r} changes")
    path.write_text(was.replace(fault.line, fault.wrong))
    return was


def failing_test(tree: Path, tests: list[str]) -> str:
    """Return the name of the first test that fails in a copy of the source, or nothing."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    found = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode == 1 and found:
        return found[0].partition(" - ")[0]
    if done.returncode:
        raise RuntimeError(f"pytest ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return ""


def main() -> int:
    """Plant the faults named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of the names of faults; all by default")
    parser.add_argument("--source", type=Path, default=ROOT, help="the source tree; by default this one")
    parser.add_argument("--all", action="store_true", help="run the whole suite for each")
    given = parser.parse_args()
    chosen = [fault for fault in FAULTS if not given.names or any(name in fault.name for name in given.names)]
    caught = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for room in ROOMS:  # with the compiled kernels, which know when their source has changed
            copy = shutil.copytree if (given.source / room).is_dir() else shutil.copy2
            copy(given.source / room, tree / room)
        for fault in chosen:
            start, was = time.perf_counter(), planted(fault, tree)
            present = [test for test in fault.tests.split() if (tree / test).exists()]
            test = failing_test(tree, ["tests"] if given.all else present)
            (tree / fault.file).write_text(was)
            caught += bool(test)
            print(
                f"{'caught' if test else 'MISSED'}  {fault.name}: {test} ({time.perf_counter() - start:.0f} s)",
                flush=True,
            )
    print(f"{caught} of {len(chosen)} caught")
    return int(caught < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
