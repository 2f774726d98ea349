"""The command line: `flds solve`, `resume`, `info`, `sweep`, `validate`, `reproduce` and `phase-diagram`."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flds.cli.console import BAD_USAGE, ending, extra, fail, interrupts, say, show_list, silent
from flds.cli.given import check_alone, check_place, check_targeted, given
from flds.cli.outcome import finish, from_file
from flds.cli.pictures import attempt, draw_regime, quieten
from flds.cli.places import check_folder, check_kept, check_out, check_plot, check_table, clean_parts
from flds.cli.ranks import communicator_if
from flds.cli.training import (
    DEFAULT_DEPTH,
    DEFAULTS,
    assignments,
    estimate,
    load_data,
    numbers_of,
    rule_of,
    run,
    show_warnings,
    training_problem,
    whole_runs,
)

REFUTED, OUT_OF_MEMORY = 1, 4


class Commands(TyperGroup):
    """Commands that say when they were interrupted, and end quietly when their output is closed."""

    def make_context(self, *arguments: Any, **rest: Any) -> Any:
        with ending():
            return super().make_context(*arguments, **rest)

    def invoke(self, ctx: Any) -> Any:
        with ending():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Commands, add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Deep residual networks of infinite width and depth, during training.",
)  # fmt: skip


def _version(shown: bool) -> None:
    if shown:
        from flds import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    quieten()


@app.command()
def solve(
    context: typer.Context,
    data: Annotated[str, typer.Option(help="digits, cifar10:FOLDER (binary version), or FILE.npz with inputs, targets and optionally test_inputs, test_targets.")] = "digits",
    out: Annotated[Path, typer.Option(help="Results file to write; the picture goes beside it as .png.")] = Path("flds.nc"),
    activation: Annotated[str, typer.Option(help="φ: identity, tanh, relu, gelu, erf, softplus, silu or sin.")] = DEFAULTS["activation"],
    horizon: Annotated[float, typer.Option(help="T, the length of the depth interval.")] = DEFAULTS["horizon"],
    learning_rate: Annotated[float | None, typer.Option(help="η_c; the rate of width n is η_c n. Default 1 (with momentum μ 1 − μ), of muon 0.2, of adam 0.1.")] = DEFAULTS["learning_rate"],
    schedule: Annotated[str, typer.Option(help="How η_c changes over the K steps: constant, cosine (½ (1 + cos πk/K)) or linear (1 − k/K).")] = "constant",
    optimizer: Annotated[str, typer.Option(help="sgd, muon (on the hidden matrices, the rest by sgd) or adam (holds matrices whole).")] = DEFAULTS["optimizer"],
    momentum: Annotated[float | None, typer.Option(help="Momentum of sgd (default 0) and muon (default 0.95).")] = None,
    nesterov: Annotated[bool | None, typer.Option("--nesterov/--no-nesterov", help="Nesterov's momentum; default for muon.")] = None,
    weight_decay: Annotated[float, typer.Option(help="λ: a step multiplies parameters by 1 − η_c λ first.")] = DEFAULTS["weight_decay"],
    gradient_clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient, free of width; by default any.")] = DEFAULTS["gradient_clip"],
    residual: Annotated[str, typer.Option(help="Branches: single_matrix, W φ(h), or two_layer, V φ(W ν(h) + b).")] = DEFAULTS["residual"],
    hidden_ratio: Annotated[float, typer.Option(help="Of two_layer: hidden neurons over the width.")] = DEFAULTS["hidden_ratio"],
    normalization: Annotated[str | None, typer.Option(help="Of two_layer: ν, rms_norm or layer_norm; by default none.")] = DEFAULTS["normalization"],
    gain: Annotated[bool, typer.Option("--gain", help="Of two_layer: trainable gains after the normalisation.")] = DEFAULTS["gain"],
    bias: Annotated[bool, typer.Option("--bias", help="Of two_layer: the bias b.")] = DEFAULTS["bias"],
    branch_exponent: Annotated[float, typer.Option(help="e of the branch scale (T/L)^e, 0.5 or 1.")] = DEFAULTS["branch_exponent"],
    steps: Annotated[int, typer.Option(help="Number of updates K.")] = DEFAULTS["steps"],
    loss: Annotated[str | None, typer.Option(help="squared, logistic or cross_entropy; by default cross_entropy for whole-number targets from 0 on, else squared.")] = DEFAULTS["loss"],
    batch_size: Annotated[int | None, typer.Option(help="Samples a step; default 16, or all of them if there are fewer.")] = DEFAULTS["batch_size"],
    batch_order: Annotated[str, typer.Option(help="Order in which samples are visited: random or sequential.")] = DEFAULTS["batch_order"],
    batch_seed: Annotated[int, typer.Option(help="Seed of the random order.")] = DEFAULTS["batch_seed"],
    train_samples: Annotated[int | None, typer.Option(help="Use only the first so many training samples.")] = None,
    test_samples: Annotated[int | None, typer.Option(help="Use only the first so many test samples; default 1000.")] = None,
    particles: Annotated[int | None, typer.Option(help="Number of particles N; by default as many as take about ten seconds on two cores and 3.5 GB, the same on every machine.")] = None,
    target_error: Annotated[float | None, typer.Option(help="Estimate the limit N, L → ∞ with 95 % intervals no wider than ± this, by whatever sizes and method are cheapest.")] = None,
    budget_seconds: Annotated[float | None, typer.Option(help="With --target-error, time for all rounds; what was reached by then is written.")] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Choose the number of particles by the speed and the free memory of this machine.")] = False,
    width: Annotated[int | None, typer.Option(help="Train a finite network of this width, in law, instead of the limit.")] = None,
    depth: Annotated[int, typer.Option(help="Number of layers L, or of depth steps of the limit.")] = DEFAULT_DEPTH,
    backward_weights: Annotated[str, typer.Option(help="tied: ordinary backpropagation; independent: Definition 1 of the FLDS paper.")] = "tied",
    sampling: Annotated[str | None, typer.Option(help="How noise is drawn for the limit: matched (default, smaller error), law (as a network would) or matched_all (a test).")] = None,
    operator: Annotated[str, typer.Option(help="How weights are held: lazy, dense, or auto for the cheaper.")] = "auto",
    tolerance: Annotated[float | None, typer.Option(help="Relative size of what may be dropped; default 0.1/sqrt(N), by law 0.001/sqrt(N).")] = None,
    rank_budget: Annotated[tuple[int, int] | None, typer.Option(metavar="FORWARD BACKWARD", help="Largest forward and backward rank.")] = None,
    noise_depth: Annotated[int | None, typer.Option(help="Grid of the noise, a multiple of the depth.")] = None,
    record_every: Annotated[int | None, typer.Option(help="Steps between records; default a quarter of the run.")] = None,
    recorded_samples: Annotated[str | None, typer.Option(help="How many training samples are recorded, spread evenly; or their indices, as 0,3,5; default 64.")] = None,
    record_kernels: Annotated[bool, typer.Option("--record-kernels", help="Record the kernels Σ and Θ, and how Σ aligns with the targets.")] = False,
    keep_state: Annotated[bool, typer.Option("--keep-state", help="Keep the trained network in the file, for resume and predictions.")] = False,
    dtype: Annotated[str | None, typer.Option(help="Storage precision, float32 or float64; by default float32 for the limit unless rates are small, float64 for a network.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads; default all CPUs.")] = None,
    device: Annotated[str | None, typer.Option(help="Keep the particles in tensors of torch on cuda, cuda:1 or cpu.")] = None,
    replicates: Annotated[int, typer.Option(help="Independent repetitions, for standard errors.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    mpi: Annotated[bool, typer.Option("--mpi", help="Share the particles among the ranks of mpiexec -n RANKS flds solve --mpi; threads are those of each rank.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Keep the run in this file while it goes on; the same command again goes on from there, and removes it at the end.")] = None,
    checkpoint_every: Annotated[float, typer.Option(help="Seconds between checkpoints, at least.")] = 600.0,
    source: Annotated[Path | None, typer.Option("--from", help="Run again what is in this results file, with the same data, settings and seed.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")] = False,
) -> None:  # fmt: skip
    """Train on data and write a results file and a picture.

    Without options this trains the infinite-width limit on handwritten digits.
    """
    from solvers.ranks import on_first
    from solvers.results.checkpoint import Checkpoint

    if target_error is not None:
        check_targeted(context)
    elif budget_seconds is not None:
        raise ValueError("--budget-seconds goes with --target-error")
    check_place(device, mpi)
    communicator, kept = communicator_if(mpi), Checkpoint(checkpoint, checkpoint_every, stays=True)
    on_first(lambda: check_kept(kept, out, source), communicator)
    if source is not None:
        check_alone(context, {"source", "out", "quiet", "threads", "device", "mpi", "checkpoint", "checkpoint_every"})
        on_first(lambda: check_out(out, source), communicator)
        from flds.replay import rerun

        solution = from_file(source, threads, device, quiet, rerun, communicator, checkpoint=kept)
        finish(solution, out, quiet, communicator, kept)
        return
    if width is not None and sampling not in (None, "law"):
        raise ValueError(f"--sampling must be law for a finite network, got {sampling!r}; leave it out with --width")
    if particles is not None and width is not None:
        raise ValueError("give --particles for the limit or --width for a finite network, not both")
    if fit and (particles is not None or width is not None):
        raise ValueError("--fit chooses the number of particles; leave out --particles and --width")
    if fit and mpi:
        raise ValueError("--fit chooses for one process; leave out --fit or --mpi")
    if fit and checkpoint is not None:
        raise ValueError(
            "--fit may choose another number of particles when the command is given again; give --particles"
        )
    on_first(lambda: check_out(out), communicator)
    dataset = load_data(data)
    problem = training_problem(
        dataset, activation, horizon, learning_rate, steps, loss, batch_size, batch_order, batch_seed, train_samples,
        test_samples, schedule, optimizer=rule_of(optimizer, momentum, nesterov),
        weight_decay=weight_decay, gradient_clip=gradient_clip, residual=residual, hidden_ratio=hidden_ratio,
        normalization=normalization, gain=gain, bias=bias, branch_exponent=branch_exponent,
    )  # fmt: skip
    options = {
        "backward_weights": backward_weights, "operator": operator, "tolerance": tolerance,
        "rank_budget": rank_budget, "noise_depth": noise_depth, "record_kernels": record_kernels,
        "keep_state": keep_state,
        "record_every": max(1, -(-steps // 4)) if record_every is None else record_every, "dtype": dtype, "threads": threads, "device": device,
        "replicates": replicates, "seed": seed, "communicator": communicator, "checkpoint": kept,
        "recorded_samples": numbers_of("--recorded-samples", "64" if recorded_samples is None else recorded_samples),
    }  # fmt: skip
    if target_error is not None:
        names = ("particles", "depth", "replicates", "budget_seconds")
        sizes = {name: context.params[name] for name in names if given(context, name)}
        finish(estimate(problem, target_error, options, sizes, checkpoint, quiet), out, quiet)
        return
    solution = run(problem, particles, width, depth, sampling or "matched", options, fit, quiet)
    finish(solution, out, quiet, communicator, kept)
    if not any(given(context, name) for name in context.params if name != "out"):
        from flds.cli.demo import last_screen

        print(last_screen(solution, out))


@app.command()
def resume(
    file: Annotated[Path, typer.Argument(help="A results file that was written with --keep-state.")],
    steps: Annotated[int | None, typer.Option(help="Further training steps; of a run that ended early by default the rest.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Their learning rate; default as planned, then the last one.")] = None,
    out: Annotated[Path, typer.Option(help="Results file to write; the picture goes beside it as .png.")] = Path("flds.nc"),
    threads: Annotated[int | None, typer.Option(help="Threads; default all CPUs.")] = None,
    device: Annotated[str | None, typer.Option(help="Go on on cuda, cuda:1 or cpu of torch; by default where the run was.")] = None,
    mpi: Annotated[bool, typer.Option("--mpi", help="Share the particles among the ranks of mpiexec, as for solve.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Keep the run in this file while it goes on, as for solve.")] = None,
    checkpoint_every: Annotated[float, typer.Option(help="Seconds between checkpoints, at least.")] = 600.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")] = False,
) -> None:  # fmt: skip
    """Go on training for more steps from a results file, and write all of it to a new one."""
    from flds.replay import resume as go_on
    from solvers.ranks import on_first
    from solvers.results.checkpoint import Checkpoint

    check_place(device, mpi)
    communicator, kept = communicator_if(mpi), Checkpoint(checkpoint, checkpoint_every, stays=True)
    on_first(lambda: check_out(out, file), communicator)
    on_first(lambda: check_kept(kept, out, file), communicator)
    solution = from_file(
        file, threads, device, quiet, go_on, communicator, steps=steps, learning_rate=learning_rate, checkpoint=kept
    )
    finish(solution, out, quiet, communicator, kept)


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="A results file.")],
    csv: Annotated[
        Path | None, typer.Option(help="Also write what changes with the step as a table of this name.")
    ] = None,
) -> None:
    """Print what a results file holds, and how to run it again."""
    from flds.replay import can_rerun, understood
    from flds.results.files import load
    from solvers.results.solution import has_groups

    if csv is not None:
        check_table(csv, file)
        clean_parts(csv.parent, csv.name)
    solution = load(file, groups=False)
    with understood():
        print(solution.summary())
        name = shlex.quote(str(file))
        again = can_rerun(solution)
        if again:
            print(f"rerun      flds solve --from {name} --out again.nc")
        if again and has_groups(solution, file):
            steps = " --steps K" if solution.status == "completed" else ""
            print(f"train on   flds resume {name}{steps} --out longer.nc")
        print("variables")
        for name, item in solution.variables.items():
            sizes = " × ".join(f"{dim} {size}" for dim, size in zip(item.dims, item.values.shape, strict=True))
            print(f"  {name:32} {sizes:44} {item.long_name}")
        if csv is not None:
            print(f"table    {solution.to_csv(csv)}")


@app.command()
def validate(
    sections: Annotated[list[str] | None, typer.Argument(help="Sections to run; all of them by default.", show_default=False)] = None,
    full: Annotated[bool, typer.Option("--full/--quick", help="Sizes of the kept report (four hours), or of a first look (minutes).")] = False,
    out: Annotated[Path, typer.Option(help="Folder for report.md, report.json and pictures.")] = Path("validation-report"),
    checkpoint: Annotated[Path | None, typer.Option(help="Keep finished sections in this file; the same command again goes on with the others.")] = None,
    list_sections: Annotated[bool, typer.Option("--list", help="List the sections and end.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the verdicts' counts only.")] = False,
) -> None:  # fmt: skip
    """Compare the solvers with exact answers and dense networks, and write one report.

    Ends with status 1 if a claim of this library is refuted. Claims of papers are results either way. Naming
    sections runs these alone and keeps the others of the report in the folder.
    """
    with extra():
        from validation import report
    if list_sections:
        show_list(report.titles())
        return
    check_folder(out, "report.json", "report.md")
    try:
        with whole_runs():
            claims = report.validate(
                sections or (), full=full, out=out, checkpoint=checkpoint, say=silent if quiet else say
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("sections that had ended are kept in the report") from None
    print(f"\n{report.summary(claims)}\nreport  {out / 'report.md'}")
    if not report.holds(claims):
        raise typer.Exit(REFUTED)


@app.command()
def reproduce(
    figure: Annotated[str, typer.Argument(help="Name of the figure, such as feature-learning/fig1; see --list.", show_default=False)] = "",
    full: Annotated[bool, typer.Option("--full/--quick", help="The paper's sizes, or a first look (minutes).")] = False,
    data: Annotated[str, typer.Option(help="digits, or cifar10:FOLDER (binary version), for figures that train on data.")] = "digits",
    out: Annotated[Path, typer.Option(help="Folder for the picture (.png) and its data (.nc).")] = Path("figures"),
    seed: Annotated[int, typer.Option(help="Seed of all noise.")] = 0,
    list_figures: Annotated[bool, typer.Option("--list", help="List the figures and end.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")] = False,
) -> None:  # fmt: skip
    """Reproduce a figure of the papers: a picture, and a file with the numbers in it."""
    from validation import figures

    with extra(), whole_runs():
        if list_figures:
            show_list(figures.descriptions())
            return
        if not figure:
            raise ValueError("name a figure, such as feature-learning/fig1; flds reproduce --list has them all")
        if data != "digits" and not figures.takes_data(figure):
            raise ValueError(f"{figure} trains on data of its own: leave out --data")
        files = figures.reproduce(
            figure, full=full, dataset=lambda: load_data(data), out=out, seed=seed, say=silent if quiet else say
        )
    if not quiet:
        for path in files:
            print(path)


@app.command()
def sweep(
    grid: Annotated[list[str], typer.Option(help="NAME=A,B,… of a field of the problem, such as learning_rate, or an argument of the solver, such as depth or width; repeat for more.")],
    fixed: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE that is the same in all runs; repeat for more.")] = None,
    data: Annotated[str, typer.Option(help="As for solve.")] = "digits",
    train_samples: Annotated[int | None, typer.Option(help="Use only the first so many training samples.")] = None,
    test_samples: Annotated[int | None, typer.Option(help="Use only the first so many test samples; default 1000.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs' files, and of sweep.nc with all results.")] = Path("sweep"),
    workers: Annotated[int | None, typer.Option(help="Number of processes; default one for each CPU.")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw the final loss against the learning rate, or what else varies first, as sweep.png.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only.")] = False,
) -> None:  # fmt: skip
    """Train at every point of a grid; called again, do only what is missing.

    With width in the grid or among the fixed values, finite networks are trained, otherwise the limit.
    """
    from flds.sweeps import sweep as run_sweep

    check_folder(out, "sweep.nc", *["sweep.png"] * plot)
    clean_parts(out)
    values, settings = assignments(grid, fixed or [])
    for name in {"problem", "grid", "folder", "executor", "workers", "progress"} & {*values, *settings}:
        raise ValueError(f"{name} is not a setting of a run; see flds sweep --help")
    fields = {name: settings.pop(name, default) for name, default in DEFAULTS.items()}
    if "depth" not in values:
        settings.setdefault("depth", DEFAULT_DEPTH)
    problem = training_problem(load_data(data), **fields, train_samples=train_samples, test_samples=test_samples)
    progress = not quiet and sys.stderr.isatty()
    try:
        with show_warnings():
            found = run_sweep(problem, values, folder=out, workers=workers, progress=progress, **settings)
    except KeyboardInterrupt as interrupt:
        interrupt.args = (f"the runs that had ended are in {out}",)  # the same one, which may say of which signal
        raise
    interrupts.ignore()
    drawn = plot and attempt(found.plot, out / "sweep.png")
    if not quiet:
        print(found.summary())
        print(f"results  {out / 'sweep.nc'}" + (f"\npicture  {out / 'sweep.png'}" if drawn else ""))
    failed = int((found.variables["status"].values == "failed").sum())
    if failed:
        runs = "1 run" if failed == 1 else f"{failed} runs"
        raise ValueError(f"{runs} failed; the errors are in {out}/*.error.json")


@app.command("phase-diagram")
def phase_diagram(
    dimension: Annotated[int, typer.Option(help="D, the embedding dimension.")],
    depth: Annotated[int, typer.Option(help="L, the number of layers.")],
    hidden_width: Annotated[int, typer.Option(help="M, the hidden units of a layer.")],
    sigma_u: Annotated[float | None, typer.Option(help="Standard deviation of input weights u; default √D.")] = None,
    sigma_v: Annotated[float | None, typer.Option(help="Standard deviation of output weights v; default √D.")] = None,
    eta_u: Annotated[float | None, typer.Option(help="Learning rate of u; default the recommended one.")] = None,
    eta_v: Annotated[float | None, typer.Option(help="Learning rate of v; default the recommended one.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the diagram with this configuration in it, as this file.")] = None,
) -> None:  # fmt: skip
    """Say in which regime a ResNet of two-layer perceptrons trains, with what errors, and what the theory recommends.

    The network is h_l = h_(l-1) + 1/(LM) sum over j of v_j rho(u_j . h_(l-1) / D), with learning rates that are multiplied
    by LM.
    """
    from flds.mean_ode.regimes import residual_regime

    if plot is not None:
        check_plot(plot)
    recommended = residual_regime(dimension, depth, hidden_width, sigma_u=sigma_u, sigma_v=sigma_v).recommended_rates
    rates = (recommended[0] if eta_u is None else eta_u, recommended[1] if eta_v is None else eta_v)
    regime = residual_regime(
        dimension, depth, hidden_width, sigma_u=sigma_u, sigma_v=sigma_v, learning_rates=rates
    )  # fmt: skip
    print("\n".join(regime.lines()))
    if plot is not None and attempt(draw_regime, regime, plot):
        print(f"picture         {plot}")


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters
    try:
        with ending():
            app(prog_name="flds")
    except MemoryError as error:
        fail(error, OUT_OF_MEMORY)
    except (ValueError, TypeError, OSError) as error:
        fail(error, BAD_USAGE)
