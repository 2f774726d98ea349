"""One report of all validations: run the sections, print every line, write JSON, Markdown and pictures.

The report in a folder is kept section by section, and each says at what scale and with which versions it was measured:
naming some runs these again and leaves the others as they are, and a run that is interrupted leaves what it has not
come to.
"""

from __future__ import annotations

import json
import math
import platform
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import flds
from flds.cli.pictures import attempt
from flds.cli.places import clean_parts, written
from solvers import checks
from solvers.plotting.style import save
from solvers.results.checkpoint import Checkpoint
from solvers.results.files import Variable, write_text
from solvers.results.versions import library_versions
from validation import (
    convergence,
    engine,
    exact,
    gallery,
    gaussian_layers,
    general_solver,
    intervals,
    law,
    limits,
    mean_ode,
    multilevel,
    optimizers,
    pairs,
    residual_branches,
    schemes_and_boundaries,
    targets,
    two_layer,
)
from validation.claims import LIBRARY, Claim, Line, Scale, Table

SECTIONS: dict[str, Callable[[Scale], Iterable[Line]]] = {
    "exact_training": exact.exact_training,
    "dense_weights": exact.dense_weights,
    "exact_mean_ode": exact.exact_mean_ode,
    "formulas": exact.formulas,
    "backward_weights": limits.backward_weights,
    "dense_networks": limits.dense_networks,
    "rates_at_initialisation": convergence.rates_at_initialisation,
    "rates_in_training": convergence.rates_in_training,
    "recursions": engine.recursions,
    "intervals": intervals.intervals,
    "targets": targets.targets,
    "initialisation": engine.initialisation,
    "several_inputs": engine.several_inputs,
    "tangent_kernel": engine.tangent_kernel,
    "identity_outputs": engine.identity_outputs,
    "independent_identity": engine.independent_identity,
    "one_matrix": engine.one_matrix,
    "law": law.law,
    "residual_branches": residual_branches.residual_branches,
    "two_layer_movement": two_layer.two_layer_movement,
    "gaussian_layers": gaussian_layers.gaussian_layers,
    "optimizers": optimizers.optimizers,
    "optimizers_on_digits": optimizers.optimizers_on_digits,
    "matched_noise": engine.matched_noise,
    "singular": engine.singular,
    "million": engine.million,
    "mean_field_equations": general_solver.mean_field_equations,
    "orders_of_convergence": general_solver.orders_of_convergence,
    "schemes_and_boundaries": schemes_and_boundaries.schemes_and_boundaries,
    "gallery": gallery.gallery,
    "multilevel": multilevel.multilevel,
    "random_batches": pairs.random_batches,
    "mean_ode": mean_ode.mean_ode,
    "mean_ode_theorems": mean_ode.mean_ode_theorems,
}

_SCHEMA = "flds.Report/1"


def validate(
    names: Iterable[str] = (),
    *,
    full: bool = False,
    out: Path | None = None,
    checkpoint: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[Claim]:
    """Run validations and return their claims.

    Parameters
    ----------
    names : iterable of str
        Sections to run; all of them by default.
    full : bool
        Sizes of the kept report instead of those that take minutes.
    out : Path, optional
        Folder for report.json, report.md and pictures; nothing is written without it.
    checkpoint : Path, optional
        A file in which finished sections are kept: the same call again goes on with the others. It is removed when all
        are done.
    say : callable
        Called with every line as it is found.

    Returns
    -------
    list of Claim

    Raises
    ------
    ValueError
        If a section is unknown, the folder holds a report that is not ours, or one at full size in which a quick run
        would replace a section.
    """
    named = [checks.choice("section", name, tuple(SECTIONS)) for name in dict.fromkeys(names)]
    chosen = named or list(SECTIONS)
    scale = Scale("full" if full else "quick")
    report = _read(out) if out is not None else {}
    kept = [name for name in chosen if not full and report.get(name, {}).get("scale") == "full"]
    if kept:
        raise ValueError(
            f"the report in {str(out)!r} has {kept[0]} at full size, which a quick run would replace; "
            "choose another folder"
        )
    if out is not None and not out.exists():  # what cannot be made should come out before the work
        out.mkdir(parents=True)
        out.rmdir()
    found: list[Claim] = []
    kept_so_far = Checkpoint(checkpoint)
    known = {"solver": "validate", "sections": chosen, "scale": scale.name, "out": None if out is None else str(out)}
    with kept_so_far.opened(lambda: known):
        for name in chosen:
            stored = kept_so_far.stored.get(name)
            if stored is None:
                report[name] = _section(name, scale, out, say)
                kept_so_far.end(name, {"json": Variable.of_json(report[name], "section")})
            else:
                report[name] = stored["json"].json()
            found += [Claim(**claim) for claim in report[name]["claims"]]
            if out is not None:
                _write(out, report)
        kept_so_far.remove()
    return found


def _section(name: str, scale: Scale, out: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Run a section and return its part of the report."""
    start = time.perf_counter()
    claims: list[Claim] = []
    pictures, tables = [], []
    for line in SECTIONS[name](scale):
        if isinstance(line, Claim):
            say(str(line))
            claims.append(line)
        elif isinstance(line, Table):
            tables.append(line.lines)
        else:
            if out is not None:
                out.mkdir(exist_ok=True)
            if out is None or attempt(save, line.figure, out / f"{line.name}.png"):
                pictures.append({"file": f"{line.name}.png", "caption": line.caption})
    return {
        "title": titles()[name],
        "scale": scale.name,
        "seconds": round(time.perf_counter() - start),
        "versions": {"flds": flds.__version__} | library_versions(),
        "claims": [asdict(claim) for claim in claims],
        "pictures": pictures,
        "tables": tables,
    }


def titles() -> dict[str, str]:
    """Return what each section shows, by name."""
    return {name: " ".join((section.__doc__ or name).split()) for name, section in SECTIONS.items()}


def summary(claims: Iterable[Claim]) -> str:
    """Return the numbers of verdicts on the claims of this library, and on those of papers, as a line of text."""
    parts = []
    counts: dict[str, Counter[str]] = {}
    for claim in claims:
        counts.setdefault(claim.source, Counter())[claim.verdict] += 1
    for source, verdicts in sorted(counts.items()):
        listed = ", ".join(f"{verdicts[v]} {v}" for v in ("confirmed", "refuted", "undecided") if verdicts[v])
        parts.append(f"claims of {source}: {listed}")
    return "; ".join(parts)


def holds(claims: Iterable[Claim]) -> bool:
    """Return whether none of the claims of this library was refuted; those of papers are results either way."""
    return not any(claim.verdict == "refuted" and claim.source == LIBRARY for claim in claims)


def _read(out: Path) -> dict[str, Any]:
    path = out / "report.json"
    if not path.exists() and not (out / "report.md").exists():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        sections = dict(stored["sections"])
        _markdown(sections)
        if stored["schema"] == _SCHEMA:
            return sections
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{str(out)!r} holds another report, or a damaged one; choose another folder")


def _write(out: Path, sections: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    ordered = {name: sections[name] for name in SECTIONS if name in sections}
    stored = json.dumps({"schema": _SCHEMA, "sections": _plain(ordered)}, indent=1, ensure_ascii=False)
    texts = {"report.json": stored + "\n", "report.md": _markdown(ordered)}
    for name, text in texts.items():
        target = written(out / name)
        clean_parts(target.parent, target.name)
        write_text(target, text)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scales(sections: dict[str, Any]) -> str:
    """Say at which size the sections were measured."""
    quick = [name for name, section in sections.items() if section["scale"] != "full"]
    if not quick:
        return "All sections are at full size."
    return "All sections are at quick size." if len(quick) == len(sections) else f"At quick size: {', '.join(quick)}."


def _markdown(sections: dict[str, Any]) -> str:
    claims = [Claim(**claim) for section in sections.values() for claim in section["claims"]]
    lines = [
        "# Validation report",
        "",
        f"Verdicts on {summary(claims)}. {_scales(sections)}",
        "",
        "Errors are standard errors and intervals are 95 %; an equality is confirmed within four standard errors, "
        "with few replicates within as many as are as rare, if these are small enough to refute it. The source is who "
        'makes the claim: this library, paper F (Yao, Wu and Gao, "Understanding Scaling Laws via Neural Feature '
        'Learning Dynamics") or paper H (Chizat, "The Hidden Width of Deep ResNets").',
        "",
    ]
    for name, section in sections.items():
        lines += [f"## {name}", "", section["title"], ""]
        lines += ["| claim | source | measured | expected | verdict |", "|---|---|---|---|---|"]
        for claim in section["claims"]:
            verdict = claim["verdict"] + (f": {claim['needed']}" if claim["needed"] else "")
            cells = (claim["name"], claim["source"], claim["measured"], claim["expected"], verdict)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        for table in section["tables"]:
            lines += ["", *table]
        for picture in section["pictures"]:
            lines += ["", f"![{picture['caption']}]({picture['file']})", "", picture["caption"]]
        versions = ", ".join(f"{library} {version}" for library, version in section["versions"].items())
        lines += ["", f"{section['scale'].capitalize()} scale, {section['seconds']} s, {versions}.", ""]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    lines += [f"Largest memory of the last run {memory:.1f} GB, {platform.machine()}.", ""]
    return "\n".join(lines)
