"""The report: what it writes and keeps, and that it refutes an engine with a fault planted in it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

pytest.importorskip("torchsde")

import flds.training.untrained
from flds.cli.commands import app
from flds.training.network import Network
from solvers.matrices import reveal
from solvers.sde.equation import McKeanVlasov
from validation import engine, report
from validation.claims import PAPER_F, Picture, Scale, Table, check, equal

RUNNER = CliRunner()


@pytest.fixture
def sections(monkeypatch):
    """Two sections that take no time."""

    def first(scale):
        """The first section."""
        yield equal("one | two", 1.0, 0.01, 1.0, 0.1)
        yield Table(["| a |", "|---|", "| 7 |"])
        yield Picture("drawing", "An empty picture.", Figure())

    def second(scale):
        """The second section."""
        yield check("a paper's claim", scale.name, "x", False, PAPER_F)
        yield equal("three", 1.0, 0.1, 1.0, 0.1)

    monkeypatch.setattr(report, "SECTIONS", {"first": first, "second": second})


def test_report_in_three_forms(sections, tmp_path):
    lines: list[str] = []
    claims = report.validate(out=tmp_path, say=lines.append)
    assert [claim.verdict for claim in claims] == ["confirmed", "refuted", "undecided"]
    assert len(lines) == 3
    assert report.holds(claims)  # what is refuted is a paper's claim
    assert report.summary(claims) == "claims of flds: 1 confirmed, 1 undecided; claims of paper F: 1 refuted"
    page = (tmp_path / "report.md").read_text()
    assert "| one \\| two | flds | 1.000 ± 0.010 (z = +0.0) | 1.000 | confirmed |" in page
    assert "undecided: about 16 times as many replicates would decide it" in page
    assert "| a |\n|---|\n| 7 |" in page
    assert "![An empty picture.](drawing.png)" in page
    assert (tmp_path / "drawing.png").read_bytes()[:4] == b"\x89PNG"
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["sections"]["second"]["claims"][0]["estimate"] is None  # JSON has no NaN
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawing.png", "report.json", "report.md"]


def test_a_picture_that_fails_costs_no_claims(sections, tmp_path, monkeypatch, capsys):
    def fail(*arguments, **rest):
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", fail)
    assert len(report.validate(out=tmp_path, say=lambda line: None)) == 3
    assert capsys.readouterr().err == "warning: no picture: no space left\n"
    assert "drawing.png" not in (tmp_path / "report.md").read_text()


def test_what_a_killed_run_left_is_removed_and_links_are_followed(sections, tmp_path):
    (tmp_path / f".report.json.{2**70}.report.part").write_text("half")
    (tmp_path / "report.md").symlink_to("page.md")
    report.validate(["second"], out=tmp_path, say=lambda line: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.md", "report.json", "report.md"]


def test_named_sections_are_run_again_and_the_others_kept(sections, tmp_path):
    report.validate(out=tmp_path, say=lambda line: None)
    report.validate(["second"], full=True, out=tmp_path, say=lambda line: None)
    stored = json.loads((tmp_path / "report.json").read_text())["sections"]
    assert list(stored) == ["first", "second"]
    assert (stored["first"]["scale"], stored["second"]["scale"]) == ("quick", "full")
    assert stored["second"]["claims"][0]["measured"] == "full"


@pytest.mark.parametrize("text", [
    "{}", "no JSON", '{"schema": "other"}', '{"schema": "flds.Report/1", "sections": {"first": {"title": "x"}}}'
])  # fmt: skip
@pytest.mark.parametrize("names", [(), ("first",)])
def test_another_report_is_not_overwritten(sections, tmp_path, text, names):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(ValueError, match="holds another report, or a damaged one; choose another folder"):
        report.validate(names, out=tmp_path, say=lambda line: None)
    assert (tmp_path / "report.json").read_text() == text


def test_a_page_of_somebody_else_is_not_overwritten(sections, tmp_path):
    (tmp_path / "report.md").write_text("mine")
    with pytest.raises(ValueError, match="holds another report"):
        report.validate(out=tmp_path, say=lambda line: None)
    assert (tmp_path / "report.md").read_text() == "mine"


def test_sections_named_twice_are_run_once(sections, tmp_path):
    assert len(report.validate(["first", "first"], say=lambda line: None)) == 1


def test_command_line(sections, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = RUNNER.invoke(app, ["validate"])
    assert done.exit_code == 0
    assert "confirmed  flds     one | two" in done.stdout
    assert "validation-report/report.md" in done.stdout
    assert (tmp_path / "validation-report" / "report.md").exists()
    listed = RUNNER.invoke(app, ["validate", "--list"])
    assert "first " in listed.stdout
    assert listed.stdout == "first   The first section\nsecond  The second section\n"
    monkeypatch.setitem(report.SECTIONS, "first", lambda scale: [equal("wrong", 2.0, 0.01, 1.0, 0.1)])
    assert RUNNER.invoke(app, ["validate", "first", "--quiet"]).exit_code == 1


@pytest.fixture
def small(monkeypatch):
    """Sizes at which the faults below are still many standard errors away."""
    monkeypatch.setattr(engine, "sizes", lambda scale: (2_000, 10))


FAULTY = ["one_matrix", "initialisation", "identity_outputs"]


def test_nothing_is_refuted_without_a_fault(small):
    found = [claim.verdict for claim in report.validate(FAULTY, say=lambda line: None)]
    assert "refuted" not in found
    assert found.count("confirmed") > 15


def flipped_response(response, overlap):
    return -response - overlap


def no_projection(response, overlap):
    return response


def mean_gradient_squared(phi, joint):
    """E[g]² for E[g²], as Proposition 3 of paper F is printed."""
    return McKeanVlasov(
        diffusion=lambda t, g, m, h: phi.derivative(h) * np.abs(m), moments=lambda t, g: g, vectorized=True
    )


def shifted_features(self, inputs, slopes, forward, backward, rate):
    """Σ of layer ℓ + 1 where that of layer ℓ belongs, in as many directions as layer ℓ has."""
    own = [tape["hidden"] for tape in forward.tapes]
    for layer in range(len(own) - 1):
        count = min(own[layer].shape[1], own[layer + 1].shape[1])
        shifted = np.zeros_like(own[layer])
        shifted[:, :count] = own[layer + 1][:, :count]
        forward.tapes[layer] = {"hidden": shifted}
    ORIGINAL_UPDATE(self, inputs, slopes, forward, backward, rate)


ORIGINAL_UPDATE = Network.update


@pytest.mark.parametrize(
    ("target", "name", "fault", "section"),
    [
        (reveal, "shift", flipped_response, "one_matrix"),
        (reveal, "shift", flipped_response, "identity_outputs"),
        (reveal, "shift", no_projection, "one_matrix"),
        (flds.training.untrained, "backward_equation", mean_gradient_squared, "initialisation"),
        (Network, "update", shifted_features, "identity_outputs"),
    ],
)
def test_planted_faults_are_refuted(target, name, fault, section, monkeypatch, small):
    monkeypatch.setattr(target, name, fault)
    assert any(claim.verdict == "refuted" for claim in report.SECTIONS[section](Scale("quick")))
