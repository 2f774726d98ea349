"""The gallery of systems: each has its exact value, and a fault in any of them is refuted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from solvers import equations
from validation import gallery
from validation.claims import Scale

QUICK = Scale("quick")
SECTIONS = {
    "dawson": gallery.double_well,
    "fitzhugh_nagumo": gallery.neurons,
    "integrate_and_fire": gallery.firing,
    "vicsek": gallery.flock,
    "motsch_tadmor": gallery.relative_influence,
    "inertial_kuramoto": gallery.oscillators,
    "langevin": gallery.underdamped,
    "consensus": gallery.consensus,
    "ensemble_kalman": gallery.sampler,
}
# A parameter of each, by which factor it is wrong where the exact value takes it as it was.
FAULTS = {
    "dawson": ("volatility", 1.15),
    "integrate_and_fire": ("volatility", 1.15),
    "vicsek": ("alignment", 0.7),
    "motsch_tadmor": ("strength", 1.05),
    "inertial_kuramoto": ("temperature", 1.15),
    "langevin": ("stiffness", 1.2),
    "consensus": ("volatility", 0.3),
    "ensemble_kalman": ("precision", 1.1),
}


@pytest.mark.parametrize("name", SECTIONS)
def test_values_are_exact(name):
    verdicts = [claim.verdict for claim in SECTIONS[name](QUICK)]
    assert "refuted" not in verdicts
    assert "confirmed" in verdicts


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_parameter_is_refuted(name, monkeypatch):
    """The runs have it, the exact values do not."""
    entry, factor = FAULTS[name]
    replicates, many, solve = gallery.replicates, gallery.solvers.solve_many, equations.System.solve

    def wrong(args):
        return args._replace(**{entry: factor * np.asarray(getattr(args, entry))[()]})

    def other(system, *rest, **named):
        return replicates(system, *rest, **{"args": [wrong(system.args)] * 12} | named)

    def other_many(*rest, args, **named):
        return many(*rest, args=[wrong(one) for one in args], **named)

    def other_solve(self, *rest, **named):
        return solve(self, *rest, **{"args": wrong(self.args)} | named)

    monkeypatch.setattr(gallery, "replicates", other)
    monkeypatch.setattr(equations.System, "solve", other_solve)
    if name == "consensus":
        fake = SimpleNamespace(**{one: getattr(gallery.solvers, one) for one in gallery.solvers.__all__})
        fake.solve_many = other_many
        monkeypatch.setattr(gallery, "solvers", fake)
    assert "refuted" in [claim.verdict for claim in SECTIONS[name](QUICK)]
