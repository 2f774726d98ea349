"""The file of a checkpoint: whole or as before, refused where it does not fit, and how often it is written."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import solvers
from solvers.results import checkpoint as checkpoints
from solvers.results import growing
from solvers.results.checkpoint import Checkpoint, difference
from solvers.results.files import Variable
from tests.solvers.equations import ORNSTEIN_UHLENBECK

DESCRIBED = {"solver": "solve", "steps": 10, "x0": {"sha256": "a"}, "check": [1.0, 2.0]}


def grows(name):
    return name == "rows"


def state(count, width=3):
    rows = np.arange(count * width, dtype=np.float64).reshape(count, width)
    return {
        "step": Variable((), np.array(count), "step"),
        "rows": Variable(("row", "column"), rows, "rows"),
        "small": Variable(("a", "b"), np.full((2, 2), count, np.float32), "small"),
    }


def stored(path, described=DESCRIBED):
    kept = Checkpoint(path, 0)
    with kept.opened(lambda: described):
        return kept.stored


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, item in expected.items():
        assert found[name].dims == item.dims
        assert found[name].values.dtype == item.values.dtype
        np.testing.assert_array_equal(found[name].values, item.values)


def test_what_is_kept_is_read_back_and_rows_are_written_once(tmp_path):
    path, sizes = tmp_path / "run.ckpt", []
    kept = Checkpoint(path, 0)
    with kept.opened(lambda: DESCRIBED):
        assert kept.stored == {}
        for count in (1, 4, 4, 9):
            kept.keep("run", state(count), grows)
            kept.wait()
            sizes.append((tmp_path / "run.ckpt.rows0").stat().st_size)
    assert np.diff(sizes)[1] == 0
    assert sizes[-1] <= 9 * 3 * 8 + 3 * 64
    same(stored(path)["run"], state(9))
    with kept.opened(lambda: DESCRIBED):
        kept.keep("run", state(12), grows)  # another process appends to what is there
    same(stored(path)["run"], state(12))
    assert (tmp_path / "run.ckpt.rows0").stat().st_size - sizes[-1] <= 3 * 3 * 8 + 64
    with kept.opened(lambda: DESCRIBED):
        kept.remove()
    assert list(tmp_path.iterdir()) == []


def test_groups_that_have_ended_stay(tmp_path):
    path = tmp_path / "run.ckpt"
    kept = Checkpoint(path, 0)
    with kept.opened(lambda: DESCRIBED):
        kept.end("first", state(3), grows)
        kept.keep("second", state(5), grows)
    kept = Checkpoint(path, 0)
    with kept.opened(lambda: DESCRIBED):
        same(kept.stored["second"], state(5))
        kept.keep("second", state(6), grows)
    found = stored(path)
    same(found["first"], state(3))
    same(found["second"], state(6))


def test_rows_that_nobody_needs_any_more_are_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_DEAD", 100)
    kept = Checkpoint(tmp_path / "run.ckpt", 0)
    with kept.opened(lambda: DESCRIBED):
        kept.keep("first", state(1000), grows)
        kept.keep("second", state(5), grows)
    assert not (tmp_path / "run.ckpt.rows0").exists()
    assert (tmp_path / "run.ckpt.rows1").stat().st_size < 200
    same(stored(tmp_path / "run.ckpt")["second"], state(5))


def test_rows_of_another_shape_are_written_anew(tmp_path):
    kept = Checkpoint(tmp_path / "run.ckpt", 0)
    with kept.opened(lambda: DESCRIBED):
        kept.keep("run", state(4), grows)
        kept.keep("run", state(2, width=5), grows)
    same(stored(tmp_path / "run.ckpt")["run"], state(2, width=5))


@pytest.mark.parametrize("called", ["fsync", "replace"])
@pytest.mark.parametrize("which", [1, 2])
def test_a_full_disk_is_a_warning_and_the_last_checkpoint_stays(tmp_path, monkeypatch, called, which):
    path, calls = tmp_path / "run.ckpt", [0]
    plain = getattr(os, called)

    def full(*arguments):
        calls[0] += 1
        if calls[0] == which:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(*arguments)

    kept = Checkpoint(path, 0)
    with kept.opened(lambda: DESCRIBED):
        kept.keep("run", state(3), grows)
        kept.wait()
        monkeypatch.setattr(os, called, full)
        if called == "replace" and which == 2:
            kept.keep("run", state(4), grows)
            kept.wait()
            expected = 4
        else:
            expected = 3
        kept.keep("run", state(5), grows)
        with pytest.warns(RuntimeWarning, match=r"no checkpoint could be written \(No space left on device\)"):
            kept.wait()
        same(stored_beside(path, tmp_path)["run"], state(expected))
        kept.keep("run", state(6), grows)
    same(stored(path)["run"], state(6))
    assert len(kept.notes) == 1


def stored_beside(path, folder):
    """Read a copy, as the checkpoint itself is held."""
    copy = folder / "copy"
    copy.mkdir(exist_ok=True)
    for one in folder.glob("run.ckpt*"):
        (copy / one.name).write_bytes(one.read_bytes())
    return stored(copy / path.name)


def test_the_interval_grows_with_the_time_that_writing_takes(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    append = growing.GrowingRows.append

    def slowly(self, arrays):
        clock[0] += 7.0
        append(self, arrays)

    monkeypatch.setattr(growing.GrowingRows, "append", slowly)
    kept = Checkpoint(tmp_path / "run.ckpt", 10.0)
    with kept.opened(lambda: DESCRIBED):
        assert not kept.due()
        clock[0] = 10.0
        assert kept.due()
        kept.keep("run", state(1), grows)
        kept.wait()
        clock[0] = 17.0 + 39 * 7.0  # writing would take more than a fortieth
        assert not kept.due()
        clock[0] = 17.0 + 40 * 7.0
        assert kept.due()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 11}, "steps is 10 there and 11 here; choose another file"),
        ({"x0": {"sha256": "b"}}, "other x0; choose another file"),
        ({"check": [1.0, 2.1]}, "other check; choose another file"),
        ({"seed": 3}, "seed is None there and 3 here; choose another file"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(tmp_path, change, said):
    path = tmp_path / "run.ckpt"
    with Checkpoint(path, 0).opened(lambda: DESCRIBED) as kept:
        kept.keep("run", state(2), grows)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"is that of another run: {said}"):
        stored(path, DESCRIBED | change)
    assert path.read_bytes() == before
    same(stored(path)["run"], state(2))


def test_values_of_functions_may_differ_by_rounding():
    assert difference({"check": [1.0]}, {"check": [1.0 + 1e-12]}) is None
    assert difference({"check": [1.0]}, {"check": [1.0, 1.0]}) == "other check"


def test_another_version_is_refused_and_another_machine_is_not(tmp_path, monkeypatch):
    path = tmp_path / "run.ckpt"
    with Checkpoint(path, 0).opened(lambda: DESCRIBED) as kept:
        kept.keep("run", state(2), grows)
    versions = checkpoints.library_versions()
    monkeypatch.setattr(checkpoints, "library_versions", lambda: versions | {"flds": "9.9"})
    with pytest.raises(ValueError, match=r"is of version .*, and this is 9\.9; choose another file"):
        stored(path)
    monkeypatch.setattr(checkpoints, "library_versions", lambda: versions | {"numpy": "9.9"})
    with pytest.warns(RuntimeWarning, match=r"the last digits may differ: numpy .* then, 9\.9 now"):
        same(stored(path)["run"], state(2))


@pytest.mark.parametrize("name", ["run.ckpt", "run.ckpt.rows0"])
@pytest.mark.parametrize("place", [0, 70, -1])
def test_a_damaged_checkpoint_is_refused(tmp_path, name, place):
    with Checkpoint(tmp_path / "run.ckpt", 0).opened(lambda: DESCRIBED) as kept:
        kept.keep("run", state(9), grows)
    data = bytearray((tmp_path / name).read_bytes())
    data[place] ^= 1
    (tmp_path / name).write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"is no checkpoint that can be read|is damaged"):
        stored(tmp_path / "run.ckpt")


def test_missing_rows_are_said(tmp_path):
    with Checkpoint(tmp_path / "run.ckpt", 0).opened(lambda: DESCRIBED) as kept:
        kept.keep("run", state(9), grows)
    (tmp_path / "run.ckpt.rows0").unlink()
    with pytest.raises(ValueError, match=r"is damaged: run\.ckpt\.rows0, which belongs beside it, is missing"):
        stored(tmp_path / "run.ckpt")


def test_a_copy_has_rows_of_its_own(tmp_path):
    """Both files copied go on apart from the original; one alone is refused and leaves the original whole."""
    with Checkpoint(tmp_path / "run.ckpt", 0).opened(lambda: DESCRIBED) as kept:
        kept.keep("run", state(9), grows)
    shutil.copy(tmp_path / "run.ckpt", tmp_path / "copy.ckpt")
    with pytest.raises(ValueError, match=r"copy\.ckpt\.rows0, which belongs beside it, is missing"):
        stored(tmp_path / "copy.ckpt")
    shutil.copy(tmp_path / "run.ckpt.rows0", tmp_path / "copy.ckpt.rows0")
    for name, count in (("copy.ckpt", 15), ("run.ckpt", 12)):
        with Checkpoint(tmp_path / name, 0).opened(lambda: DESCRIBED) as kept:
            same(kept.stored["run"], state(9))
            kept.keep("run", state(count), grows)
    same(stored(tmp_path / "copy.ckpt")["run"], state(15))
    same(stored(tmp_path / "run.ckpt")["run"], state(12))


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    others = ("run.ckpt.rows", "run.ckpt.rowsx", "other.ckpt.rows0", ".other.ckpt.1.ab.part", "run.ckpt2")
    for name in (*others, "run.ckpt.rows3", ".run.ckpt.1.ab.part"):
        (tmp_path / name).write_text("left")
    with Checkpoint(tmp_path / "run.ckpt", 0).opened(lambda: DESCRIBED) as kept:
        kept.keep("run", state(1), grows)
        kept.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_another_process_is_refused(tmp_path):
    path = tmp_path / "run.ckpt"
    program = f"""
        from pathlib import Path
        from solvers.results.checkpoint import Checkpoint
        with Checkpoint({str(path)!r}, 0).opened(dict):
            print("held", flush=True)
            input()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    said = (
        rf"another run is at work on the checkpoint .*, process {child.pid}; wait for its end, or choose another file"
    )
    with pytest.raises(BlockingIOError, match=said):
        stored(path, {})
    child.kill()
    child.communicate()
    assert stored(path, {}) == {}


@pytest.mark.parametrize(
    ("path", "every", "error", "said"),
    [
        (3, 1.0, TypeError, "checkpoint must be the name of a file, got 3"),
        ("run", "often", TypeError, "checkpoint_every must be"),
        ("run", -1, ValueError, "checkpoint_every must be a finite number of at least 0"),
        ("run", np.nan, ValueError, "checkpoint_every must be a finite number"),
    ],
)
def test_arguments_are_checked(path, every, error, said):
    with pytest.raises(error, match=said):
        solvers.solve(ORNSTEIN_UHLENBECK, np.ones(10), 0.0, 1.0, 3, checkpoint=path, checkpoint_every=every)


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(PermissionError, match=r"checkpoint: the folder .* cannot be written to; choose another"):
        stored(tmp_path / "run.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_function_that_failed_may_be_mended(tmp_path):
    """A solve that fails goes on where it was kept, once its function, which has the same code, does not."""
    path, ready = tmp_path / "kept" / "run.ckpt", str(tmp_path / "ready")
    path.parent.mkdir()

    def own(t, x):
        if t > 0.5 and not os.path.exists(ready):
            raise ValueError("not yet")
        return x.sum()

    asked = {"save": {"own": own}, "checkpoint": path, "checkpoint_every": 0}
    run = (ORNSTEIN_UHLENBECK, np.linspace(-1, 1, 500), 0.0, 1.0, 400)
    with pytest.warns(RuntimeWarning, match="not yet"):
        assert solvers.solve(*run, **asked).status == "failed"
    (tmp_path / "ready").touch()
    found, whole = solvers.solve(*run, **asked), solvers.solve(*run, save={"own": own})
    assert 0 < found.settings["continued_from_step"] <= 200
    for name, item in whole.variables.items():
        np.testing.assert_array_equal(found.variables[name].values, item.values)
    assert list(path.parent.iterdir()) == []


def test_a_group_that_has_ended_is_written_with_the_next(tmp_path):
    kept = Checkpoint(tmp_path / "run.ckpt", 0)
    with kept.opened(lambda: DESCRIBED):
        kept.end("first", state(3), None)
        assert not (tmp_path / "run.ckpt").exists()
        kept.keep("second", state(5), grows)
    same(stored(tmp_path / "run.ckpt")["first"], state(3))


def test_an_interrupt_between_two_statistics_loses_no_record(tmp_path):
    """A time is kept with its record or not at all."""

    def stop(t, x):
        if t == 0.5 and interrupts[0]:
            interrupts[0] = False
            signal.raise_signal(signal.SIGINT)
        return x.sum()

    interrupts, asked = [True], {"save": {"stop": stop, "mean": "mean"}}
    run = (ORNSTEIN_UHLENBECK, np.linspace(-1, 1, 5000), 0.0, 1.0, 20)
    with pytest.warns(RuntimeWarning, match="interrupted at t = "):
        early = solvers.solve(*run, checkpoint=tmp_path / "run.ckpt", **asked)
    assert early.times[-1] == 0.5
    interrupts[0] = True  # part of the function's closure, by which it is known
    with pytest.raises(ValueError, match="other stop"):
        solvers.solve(*run, checkpoint=tmp_path / "run.ckpt", save={"stop": lambda t, x: x.sum(), "mean": "mean"})
    interrupts[0] = False
    whole = solvers.solve(*run, **asked)
    assert whole.times.size == 21


def ramp(k):
    return solvers.McKeanVlasov(drift=lambda t, x, m: -k * x, vectorized=True)


X0 = np.linspace(-1.0, 1.0, 600)
TIMES = np.linspace(0.0, 1.0, 5)


def wave(k):
    return solvers.ExternalField(k * np.sin(np.pi * TIMES), TIMES)


GIVEN = solvers.McKeanVlasov(drift=lambda t, x, m, k: -k * x, vectorized=True)


def folding(end):
    return solvers.Reflecting(-end, end)


def jumps(size):
    return solvers.Jumps(lambda t, x, m: 1.0 + 0 * x, lambda t, x, m: size + 0 * x, 1.0)


def carried(field):
    return solvers.McKeanVlasov(drift=lambda t, x, m, f: f - x, vectorized=True), field


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ((ramp(1.0), {}), (ramp(3.0), {}), "other drift"),
        ((ramp(1.0), {}), (ramp(1.0), {"seed": 1}), "seed is 0 there and 1 here"),
        ((ramp(1.0), {}), (ramp(1.0), {"save": "variance"}), "mean"),
        ((ramp(1.0), {}), (ramp(1.0), {"scheme": "heun"}), "scheme is 'euler_maruyama' there and 'heun' here"),
        ((ramp(1.0), {}), (ramp(1.0), {"x0": X0[::-1].copy()}), "other x0"),
        ((ramp(1.0), {}), (ramp(1.0), {"save_at": [1.0]}), "other save_at"),
        ((carried(0)[0], {"field": wave(1.0)}), (carried(0)[0], {"field": wave(5.0)}), "other field"),
        ((GIVEN, {"args": 1.0}), (GIVEN, {"args": 2.0}), "other args"),
        ((ramp(1.0), {"boundary": folding(2.0)}), (ramp(1.0), {"boundary": folding(3.0)}), "boundary is .*low=-2"),
        ((ramp(1.0), {"stop": lambda t, m: False}), (ramp(1.0), {"stop": lambda t, m: t > 0.9}), "other stop"),
        ((ramp(1.0), {"jumps": jumps(1.0)}), (ramp(1.0), {"jumps": jumps(2.0)}), "other size of jumps"),
    ],
)
def test_whatever_decides_the_numbers_is_compared(tmp_path, first, second, said):
    def solve(equation, x0=X0, save="mean", **rest):
        return solvers.solve(equation, x0, 0.0, 1.0, 40, save=save, checkpoint=tmp_path / "run.ckpt", **rest)

    equation, rest = first
    keep = Checkpoint.remove
    try:
        Checkpoint.remove = lambda self: None  # as if the process had ended before it
        solve(equation, checkpoint_every=0, **rest)
    finally:
        Checkpoint.remove = keep
    equation, rest = second
    with pytest.raises(ValueError, match=f"is that of another run: .*{said}"):
        solve(equation, **rest)


@pytest.mark.parametrize(
    "events",
    [
        {"boundary": solvers.Absorbing(-1.5, 1.5), "jumps": jumps(0.1)},
        {"reset": solvers.Reset(1.01, -0.5), "boundary": solvers.Reflecting(-1.2, np.inf)},
        {"save_at": [0.015, 0.5, 0.99]},
    ],
    ids=["absorption, jumps", "resets", "between times"],
)
def test_what_particles_carry_goes_on_too(tmp_path, events):
    """A run is left at its last checkpoint but one step, as if the process had ended there, and called again."""
    noisy = solvers.McKeanVlasov(lambda t, x, m: -x, lambda t, x, m: 1.0, noise="additive", vectorized=True)
    run = (noisy, X0, 0.0, 1.0, 40)
    asked = {"save": ["mean", solvers.trajectories(3)], **events}
    whole, keep = solvers.solve(*run, **asked), Checkpoint.remove
    try:
        Checkpoint.remove = lambda self: None
        solvers.solve(*run, checkpoint=tmp_path / "run.ckpt", checkpoint_every=0, **asked)
    finally:
        Checkpoint.remove = keep
    again = solvers.solve(*run, checkpoint=tmp_path / "run.ckpt", **asked)
    assert 0 < again.settings["continued_from_step"] < 40
    for name, item in whole.variables.items():
        np.testing.assert_array_equal(again.variables[name].values, item.values)


def test_an_interrupt_between_two_records_of_one_step(tmp_path):
    noisy = solvers.McKeanVlasov(diffusion=lambda t, x, m: 1.0, noise="additive", vectorized=True)
    (tmp_path / "once").touch()
    once = str(tmp_path / "once")  # a path remembers what it was asked, so it would be another one

    def first(t, x):
        if os.path.exists(once) and abs(t - 0.53) < 1e-9:
            os.remove(once)
            raise KeyboardInterrupt
        return x[0]

    asked = {"save_at": [0.51, 0.53, 0.55, 0.57, 1.0], "save": {"first": first}}
    with pytest.warns(RuntimeWarning, match="interrupted"):
        solvers.solve(noisy, X0, 0, 1, 10, checkpoint=tmp_path / "run.ckpt", **asked)
    run = solvers.solve(noisy, X0, 0, 1, 10, checkpoint=tmp_path / "run.ckpt", **asked)
    assert run.settings["continued_from_step"] == 5
    np.testing.assert_array_equal(run.first, solvers.solve(noisy, X0, 0, 1, 10, **asked).first)
    np.testing.assert_allclose(run.times, asked["save_at"], rtol=1e-15)
