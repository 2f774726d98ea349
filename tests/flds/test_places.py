"""Places for results: what is refused before the work, other folders, and what killed runs left."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import pytest
from matplotlib.figure import Figure

import flds
from flds.cli.pictures import is_ours, picture_of
from flds.cli.places import check_folder, check_out, check_table, clean_parts, fallback_folders, keep, written
from solvers.plotting.style import save
from tests.conftest import one_sample
from tests.flds.forks import FORKED_WORKERS, MAIN, run

SMALL = ["--width", "20", "--depth", "1", "--steps", "1", "--train-samples", "20", "--test-samples", "5"]


def results(path):
    with h5py.File(path, "w") as file:
        file.attrs["schema"] = "flds.Solution/1"
    return path


def as_user(user, *arguments, cwd, **rest):
    """Run a command as another user, in a process that loads what it needs by itself."""
    command = [*user, sys.executable, "-m", "flds", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, **rest)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_too_long_for_the_file_written_first(here):
    longest = os.pathconf(here, "PC_NAME_MAX")
    check_out(Path("a" * (longest - 30)))
    check_folder(Path("a" * longest))
    name, folder = "a" * (longest - 8), Path("b" * (longest + 1))
    with pytest.raises(ValueError, match="too long"):
        check_out(Path("a" * (longest + 1)))
    for check, path in ((check_out, Path(name + ".nc")), (lambda path: check_table(path, path), Path(name + ".csv")),
                        (check_folder, folder), (check_folder, "none" / folder), (check_folder, folder / "sub"),
                        (check_folder, Path("/".join(["c" * longest] * 20)))):  # fmt: skip
        with pytest.raises(ValueError, match=r"^--(out|csv): .* is too long a name for what is written there; choose"):
            check(path)


@pytest.mark.parametrize("make", [
    os.mkfifo, lambda path: socket.socket(socket.AF_UNIX).bind(path), lambda path: os.symlink("/dev/null", path)
], ids=["pipe", "socket", "device"])  # fmt: skip
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_pipes_sockets_and_devices_are_refused_at_once(here, make):
    for name in ("run.nc", "table.csv", "other.png"):
        make(name)
    for check in (lambda: check_out(Path("run.nc")), lambda: check_table(Path("table.csv"), Path("x.nc")),
                  lambda: check_folder(Path(), "run.nc"), lambda: check_out(Path("other.nc"))):  # fmt: skip
        with pytest.raises(ValueError, match="is not a file, but a folder, pipe or device; choose another name"):
            check()


def test_a_pipe_does_not_stop_the_command_line(here):
    os.mkfifo("run.nc")
    done = run("solve", *SMALL, "--out", "run.nc", cwd=here)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("flds: --out: 'run.nc' is not a file")


def test_links_are_followed(here):
    Path("far").mkdir()
    os.symlink("far/run.nc", "run.nc")
    check_out(Path("run.nc"))  # the link leads nowhere yet
    done = run("solve", *SMALL, "--out", "run.nc", cwd=here)
    assert done.returncode == 0, done.stderr
    assert Path("run.nc").is_symlink()
    assert Path("far/run.nc").is_file()
    assert Path("run.png").is_file()
    check_out(Path("run.nc"))
    with pytest.raises(ValueError, match="is the file to start from"):
        check_out(Path("run.nc"), Path("far/run.nc"))
    os.symlink("table.txt", "table.csv")
    assert run("info", "run.nc", "--csv", "table.csv", cwd=here).stdout.endswith("table    table.csv\n")
    assert Path("table.csv").is_symlink()
    assert Path("table.txt").read_text().startswith("steps,")


@pytest.mark.parametrize(("target", "error", "message"), [
    ("none/run.nc", FileNotFoundError, "--out: the folder '.*/none' does not exist; create it first"),
    ("run.nc", ValueError, "'run.nc' is a link to itself"),
    ("words.txt", ValueError, "'run.nc' exists and is not a results file"),
])  # fmt: skip
def test_links_to_bad_places_are_refused(here, target, error, message):
    Path("words.txt").write_text("mine")
    os.symlink(target, "run.nc")
    with pytest.raises(error, match=message):
        check_out(Path("run.nc"))


@pytest.mark.parametrize("name", ["", ".", "..", "/", "-"])
def test_names_of_no_file_are_refused(here, name):
    with pytest.raises(ValueError, match=r"^--out must name a results file such as run\.nc, got '[./-]+'$"):
        check_out(Path(name))
    with pytest.raises(ValueError, match=r"^--csv must name a table such as run\.csv"):
        check_table(Path(name), Path("run.nc"))


def test_standard_output_is_no_folder(here):
    with pytest.raises(ValueError, match=r"^--out must name a folder, got '-'; nothing is written to standard output$"):
        check_folder(Path("-"))
    check_folder(Path("./x/-"))


def test_results_that_can_be_written_nowhere(here, monkeypatch):
    """The message of the system names neither the file nor what it means."""
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    results("run.nc")
    solution = flds.simulate_resnet(one_sample(), width=20, depth=1)

    def full(*arguments):
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"^\[Errno 27\] File too large: '.*/run\.nc'$"):
        solution.save("run.nc")
    (here / "out").mkdir()
    with pytest.raises(OSError, match=r"^results could be written nowhere, tried ") as error:
        keep(solution, Path("out/run.nc"))
    assert str(error.value).endswith(f"tried 'out/run.nc', '{here}/run-1.nc': File too large")
    assert sorted(os.listdir()) == ["out", "run.nc"]


def test_a_limit_on_the_size_of_files_is_told_in_one_line(here):
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))\n"
    done = run("solve", *SMALL, "--out", "run.nc", cwd=here, code=limited + MAIN)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("flds: results could be written nowhere, tried 'run.nc', ")
    assert "Traceback" not in done.stderr


def test_links_to_no_folder_are_refused(here):
    os.symlink("none", "out")
    with pytest.raises(ValueError, match=r"the link 'out' leads to no folder; create '.*/none' first"):
        check_folder(Path("out"))


def test_files_of_others_in_a_sticky_folder(here, monkeypatch):
    results("run.nc")
    here.chmod(0o1777)
    check_out(Path("run.nc"))
    monkeypatch.setattr(os, "geteuid", lambda: here.stat().st_uid + 77)
    with pytest.raises(PermissionError, match=r"'run.nc' belongs to another user"):
        check_out(Path("run.nc"))
    with pytest.raises(PermissionError, match=r"'.*sweep.nc' belongs to another user"):
        check_folder(here, results("sweep.nc"))
    check_out(Path("new.nc"))


def test_another_user_is_told_before_the_work(here, another_user):
    results("run.nc")
    here.chmod(0o1777)
    done = as_user(another_user, "solve", *SMALL, "--out", "run.nc", cwd=here)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "'run.nc' belongs to another user" in done.stderr
    here.chmod(0o755)
    for arguments, name in ((["solve", *SMALL], "."), (["sweep", "--grid", "depth=1"], here)):
        done = as_user(another_user, *arguments, cwd=here)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"flds: --out: the folder {str(name)!r} cannot be written to; choose another\n"


# Loads everything and trains nothing, for which kernels would have to be compiled without a place to keep them.
LOADED = """
import sys, flds, flds.cli.commands
stored = flds.load(sys.argv.pop())
flds.cli.commands.run = lambda *rest: stored
flds.cli.commands.main()
"""


def test_a_user_without_a_home_gets_results_and_no_stray_words(here, another_user):
    """`tests/test_endurance.py` trains as well."""
    stored = flds.simulate_resnet(one_sample(), width=20, depth=1).save(here / "stored.nc")
    here.chmod(0o777)
    environment = os.environ | {"HOME": "/nonexistent", "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("MPLCONFIGDIR", None)
    command = [*another_user, sys.executable, "-c", LOADED, "solve", *SMALL, "--quiet", stored]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(os.listdir()) == ["flds.nc", "flds.png", "stored.nc"]


def test_names_of_pictures():
    for name in ("res.nc", "res.NC", "res.nc4", "res.h5", "res.hdf5", "res.cdf", "res"):
        assert picture_of(Path("a.b", name)) == Path("a.b/res.png")
    assert [picture_of(Path(name)).name for name in ("res.v1", "res.v2")] == ["res.v1.png", "res.v2.png"]


def test_pictures_of_others_are_kept(here):
    Figure().savefig("mine.png")
    with pytest.raises(ValueError, match=r"--out: the picture 'mine.png' was not written by flds; choose another name"):
        check_out(Path("mine.nc"))
    results("mine.nc")
    check_out(Path("mine.nc"))  # as older versions left it beside their results
    save(Figure(), "ours.png")
    assert is_ours(Path("ours.png"))
    check_out(Path("ours.nc"))
    save(Figure(), Path("drawing.svg"))  # which knows no such mark


def test_pictures_of_other_results_are_kept(here):
    results("run.nc")
    save(Figure(), "run.png")
    for name in ("run", "run.h5"):
        with pytest.raises(ValueError, match=r"--out: 'run.png' is the picture of 'run.nc'; choose another name"):
            check_out(Path(name))
    check_out(Path("run.nc"))


def test_the_file_to_start_from_is_kept(here):
    source = results(Path("run.png"))  # an odd name, but it is one
    results("run.nc")
    with pytest.raises(ValueError, match=r"--out: 'run.png' is the file to start from"):
        check_out(Path("run.nc"), source)
    with pytest.raises(ValueError, match=r"--csv: 'run.csv' is the file to start from"):
        check_table(Path("run.csv"), results(Path("run.csv")))


def test_files_in_the_way_of_a_sweep(here):
    Path("sweep.nc").write_text("mine")
    done = run("sweep", "--grid", "depth=1", "--out", ".", cwd=here)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "flds: --out: 'sweep.nc' exists and is not a results file; choose another name\n"


BROKEN = """
import flds
from solvers.results.upstairs import upstairs
def plot(solution, path):
    raise {error}
upstairs.plot = plot
"""


@pytest.mark.parametrize("error", ["MemoryError", "OSError(28, 'No space\\n left')", "RuntimeError('no fonts')"])
def test_a_picture_that_fails_hides_no_results(here, error):
    done = run("solve", *SMALL, cwd=here, code=BROKEN.format(error=error) + MAIN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("results  flds.nc\n")
    (line,) = [line for line in done.stderr.splitlines() if "picture" in line]
    assert line.startswith("warning: no picture: ")
    assert os.listdir() == ["flds.nc"]


def test_other_folders(here, monkeypatch):
    home, temporary, out = here / "home", here / "temporary", here / "out"
    for folder in (home, temporary, out):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert list(fallback_folders(out / "run.nc")) == [here, temporary, home]
    assert list(fallback_folders(Path("run.nc"))) == [temporary, home]
    assert list(fallback_folders(Path("gone/run.nc"))) == [here, temporary, home]
    monkeypatch.setenv("HOME", str(temporary))  # the same as another
    assert list(fallback_folders(out / "run.nc")) == [here, temporary]
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != temporary)
    assert list(fallback_folders(out / "run.nc")) == [here]
    os.symlink(home / "run.nc", "link.nc")
    assert list(fallback_folders(Path("link.nc"))) == [here]  # the disk is that of the target


def test_other_folders_where_the_current_one_is_gone(here, monkeypatch):
    (here / "gone").mkdir()
    monkeypatch.chdir(here / "gone")
    (here / "gone").rmdir()
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setattr(tempfile, "tempdir", str(here))
    assert list(fallback_folders(Path("run.nc"))) == [here]


@pytest.fixture
def dead():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def part(name, age=0.0):
    path = Path(name)
    path.write_text("half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_what_killed_runs_left_is_removed_and_nothing_else(here, dead):
    day = 90_000
    gone = [f".run.nc.{dead}.ab_12xyz.part", f".run.nc.{2**70}.abcdefgh.part"]
    old = [".run.nc.abcdefgh.part", ".run.nc.part", f".run.nc.{os.getpid()}.abcdefgh.part"]  # by a number used again
    kept = [
        ".run.nc.hgfedcba.part", f".run.nc.{os.getpid()}.hgfedcba.part", f".other.nc.{dead}.abcdefgh.part",
        f".run.nc.{dead}.abcdefgh.part.txt", f"run.nc.{dead}.abcdefgh.part", f".run.nc.v1.{dead}.abcdefgh.part",
        ".run.nc.1.abcdefgh.part",
    ]  # fmt: skip
    for name in gone + kept:
        part(name)
    for name in old:
        part(name, day)
    part(".run.nc.1.hgfedcba.part", day)  # a living process may be slow
    clean_parts(here, "run.nc")
    assert sorted(os.listdir()) == sorted([*kept, ".run.nc.1.hgfedcba.part"])
    clean_parts(here)  # of any results file
    assert f".other.nc.{dead}.abcdefgh.part" not in os.listdir()
    assert len(os.listdir()) == len(kept)


def test_two_runs_that_clean_at_once(here, dead, monkeypatch):
    for name in "abc":
        part(f".run.nc.{dead}.{name}.part")
    found = list(here.iterdir())
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(found))
    clean_parts(here, "run.nc")
    clean_parts(here, "run.nc")  # sees what is not there any more
    monkeypatch.undo()
    clean_parts(here / "none", "run.nc")
    assert list(here.iterdir()) == []


def test_commands_clean_up(here, dead):
    part(f".flds.nc.{dead}.abcdefgh.part")
    done = run("solve", *SMALL, "--quiet", cwd=here)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir()) == ["flds.nc", "flds.png"]
    (here / "grid").mkdir()
    part(f"grid/.depth=1.nc.{dead}.abcdefgh.part")
    settings = ["--set", "width=20", "--set", "steps=1", "--train-samples", "20", "--workers", "1"]
    sweep = ["sweep", "--grid", "depth=1", *settings, "--out", "grid", "--quiet"]
    done = run(*sweep, cwd=here, code=FORKED_WORKERS + MAIN)
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir("grid")) == [".sweep.lock", "depth=1.nc", "sweep.json", "sweep.nc"]


def test_the_target_of_a_link_is_what_is_written(here):
    os.symlink("far.nc", "near.nc")
    assert written(Path("near.nc")) == Path(os.path.realpath("far.nc"))
    assert written(Path("plain.nc")) == Path("plain.nc")
