"""Places for results: what can be known of them before the work, where else to go, and what killed runs left there."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from flds.cli.console import note
from flds.cli.pictures import PICTURES, RESULTS, is_ours, picture_of

if TYPE_CHECKING:
    from solvers.results.checkpoint import Checkpoint
    from solvers.results.solution import Solution

# What the state beside a file is called while it is written, with the largest number of a process.
_LONGEST_PART = ".{}.state.4194304.abcdefgh.part"
# What other programs take for standard output.
_STANDARD = "-"
# Temporary files that do not name their process are taken for abandoned after so many seconds.
_DAY = 86400.0
_STARTED = time.time()


def written(path: Path) -> Path:
    """Return the file that is written under this name: of a link its target."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def check_out(out: Path, source: Path | None = None) -> None:
    """Refuse a results file that could not be written, or that would replace something else or its own source."""
    if not out.name or str(out) == _STANDARD or out.suffix.lower() == ".png" or os.path.isdir(out):
        raise ValueError(f"--out must name a results file such as run.nc, got {str(out)!r}")
    picture = picture_of(out)
    _check_results(out)
    _check_other(out, source, "--out")
    if os.path.lexists(picture):
        _check_picture(picture, out, source)


def check_kept(checkpoint: Checkpoint, out: Path, source: Path | None = None) -> None:
    """Refuse a checkpoint that could not be written, or, as it is removed at the end, that is read or written."""
    checkpoint.check()
    path = checkpoint.path
    if path is None:
        return
    results = [out, picture_of(out), *([] if source is None else [source])]
    taken = {os.path.realpath(f"{result}{suffix}") for result in results for suffix in ("", ".state")}
    own = os.path.realpath(path)
    if any(one == own or re.fullmatch(r"\.rows\d+", one.removeprefix(own)) for one in taken):
        raise ValueError(f"--checkpoint must not be what is read or written, got {str(path)!r}; choose another name")


def check_table(csv: Path, source: Path) -> None:
    """Refuse a table that could not be written, or that would replace the results it is made of."""
    if csv.suffix != ".csv":
        raise ValueError(f"--csv must name a table such as run.csv, got {str(csv)!r}")
    _check_file(csv, "--csv")
    _check_other(csv, source, "--csv")


def check_plot(plot: Path) -> None:
    """Refuse a picture that could not be written, or that would replace one that is not ours."""
    if plot.suffix.lower() not in PICTURES:
        raise ValueError(
            f"--plot must name a picture such as regime.png, one of {', '.join(PICTURES)}, got {str(plot)!r}"
        )
    _check_file(plot, "--plot")
    if plot.exists() and not (plot.suffix.lower() == ".png" and is_ours(plot)):
        raise ValueError(f"--plot: {str(plot)!r} exists and was not written by flds; choose another name")


def check_folder(out: Path, *names: str) -> None:
    """Refuse a folder that could not be made or written to, or files in it that could not be replaced."""
    if str(out) == _STANDARD:
        raise ValueError(f"--out must name a folder, got {_STANDARD!r}; nothing is written to standard output")
    if os.path.isdir(out):
        _check_writable(out, "--out")
        for name in names:
            _check_results(out / name) if name.endswith(".nc") else _check_file(out / name, "--out")
        return
    if os.path.exists(out):
        raise ValueError(f"--out must be a folder, got the file {str(out)!r}")
    if os.path.islink(out):
        raise ValueError(f"--out: the link {str(out)!r} leads to no folder; create {os.path.realpath(out)!r} first")
    place = next(path for path in out.absolute().parents if os.path.exists(path))
    _check_writable(place, "--out")
    for part in out.absolute().relative_to(place).parts:  # the system looks at the first one that is missing only
        _check_length(out, place / part, "--out")
    _check_length(out, _beside(out / "run.nc"), "--out")  # for the path as a whole


def fallback_folders(out: Path) -> Iterator[Path]:
    """Yield folders for results where that of `out` is full or gone: here, for temporary files, and the user's home."""
    seen = set()
    with suppress(OSError):  # as where the current folder is gone
        seen.add(os.path.realpath(written(out).parent))
    candidates: tuple[Callable[[], str | Path], ...] = (Path.cwd, tempfile.gettempdir, Path.home)
    for candidate in candidates:
        with suppress(OSError, RuntimeError):  # there is none
            folder = Path(candidate())
            real = os.path.realpath(folder)
            if real not in seen and folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
                seen.add(real)
                yield folder


def keep(solution: Solution, out: Path) -> Path:
    """Save a solution as `out`, or, where that cannot be written, in another folder, which is said; return the place.

    Ranks that share a state call this together. Raises OSError if it can be written nowhere.
    """
    from solvers.ranks import on_first
    from solvers.results.arrays import communicator_of

    communicator = communicator_of(solution.groups)
    target = on_first(lambda: written(out), communicator)
    try:
        solution.save(target)
    except OSError as error:
        why, tried = error.strerror or " ".join(str(error).split()), [str(out)]
        for folder in on_first(lambda: list(fallback_folders(out)), communicator):
            place = on_first(lambda folder=folder: _unused(folder / target.name), communicator)  # type: ignore[misc]
            with suppress(OSError):
                solution.save(place)
                note(f"warning: {str(out)!r} could not be written ({why}): see {str(place)!r}")
                return place
            tried.append(str(place))
        raise OSError(f"results could be written nowhere, tried {', '.join(map(repr, tried))}: {why}") from None
    for name in (target.name, f"{target.name}.state"):
        clean_parts(target.parent, name)
    return out


def _unused(path: Path) -> Path:
    """Return a path, or the first with a number before its suffix, that names nothing."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(1))
    return next(one for one in chain([path], numbered) if not os.path.lexists(one))


def clean_parts(folder: Path, name: str | None = None) -> None:
    """Remove what killed runs left of a file, or of all results files, while they wrote it in this folder."""
    named = re.escape(name) if name else r".+\.nc"
    pattern = re.compile(rf"\.{named}(?:\.(?P<process>\d+))?(?:\.[^.]+)?\.part")
    with suppress(OSError):  # there is no such folder yet
        for path in list(folder.iterdir()):
            found = pattern.fullmatch(path.name)
            if found:
                with suppress(OSError):  # another run was faster, or it is not ours to remove
                    if _is_abandoned(path, found["process"]):
                        path.unlink()


def _is_abandoned(part: Path, process: str | None) -> bool:
    """Whether the process that wrote this temporary file has ended."""
    changed = part.stat().st_mtime
    if process is None:
        return changed < time.time() - _DAY
    if int(process) == os.getpid():  # in a container every run has the same number
        return changed < _STARTED
    if os.name != "posix":  # there a signal, even 0, ends the process
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # somebody else's
        return False
    return False


def _check_file(path: Path, option: str) -> None:
    """Refuse what cannot be replaced by a file."""
    target = written(path)
    if os.path.islink(target):
        raise ValueError(f"{option}: {str(path)!r} is a link to itself; choose another name")
    if not os.path.isdir(target.parent):
        raise FileNotFoundError(f"{option}: the folder {str(target.parent)!r} does not exist; create it first")
    _check_length(path, _beside(target), option)
    _check_writable(target.parent, option)
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{option}: {str(path)!r} is not a file, but a folder, pipe or device; choose another name")
    if target.exists() and _is_kept_for_another(target):
        raise PermissionError(
            f"{option}: {str(path)!r} belongs to another user, and only its owner may replace it in this folder; "
            "choose another name"
        )


def _check_writable(folder: Path, option: str) -> None:
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise PermissionError(f"{option}: the folder {str(folder)!r} cannot be written to; choose another")


def _check_length(named: Path, probe: Path, option: str) -> None:
    """Refuse a name if the system finds `probe`, which goes by it, too long."""
    try:
        os.lstat(probe)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError(
                f"{option}: {str(named)!r} is too long a name for what is written there; choose a shorter one"
            ) from None


def _beside(path: Path) -> Path:
    """A name as long as that under which a file is written before it is renamed."""
    return path.with_name(_LONGEST_PART.format(path.name))


def _check_results(out: Path) -> None:
    _check_file(out, "--out")
    if os.path.exists(out) and not _is_results(out):
        raise ValueError(f"--out: {str(out)!r} exists and is not a results file; choose another name")


def _check_other(path: Path, source: Path | None, option: str) -> None:
    if source is not None and os.path.exists(path) and os.path.exists(source) and path.samefile(source):
        raise ValueError(f"{option}: {str(path)!r} is the file to start from; choose another name")


def _check_picture(picture: Path, out: Path, source: Path | None) -> None:
    """Refuse to replace a picture that is not ours, or is that of other results."""
    _check_file(picture, "--out")
    _check_other(picture, source, "--out")
    if not os.path.exists(picture):
        return  # a link to what is to be made
    if not os.access(picture, os.R_OK | os.W_OK):
        raise PermissionError(f"--out: the picture {str(picture)!r} cannot be written to; choose another name")
    # older versions did not mark their pictures
    if not (os.path.exists(out) or is_ours(picture)):
        raise ValueError(f"--out: the picture {str(picture)!r} was not written by flds; choose another name")
    for suffix in ("", *RESULTS):
        other = picture.with_name(picture.stem + suffix)
        shared = other.name != out.name and picture_of(other) == picture and other.is_file()
        if shared and not (out.exists() and out.samefile(other)) and _is_results(other):
            raise ValueError(f"--out: {str(picture)!r} is the picture of {str(other)!r}; choose another name")


def _is_kept_for_another(target: Path) -> bool:
    """Whether the folder is one like /tmp, in which a file is replaced by its owner only."""
    folder = target.parent.stat()
    user = getattr(os, "geteuid", int)()
    return bool(folder.st_mode & stat.S_ISVTX) and user not in (0, folder.st_uid, target.stat().st_uid)


def _is_results(path: Path) -> bool:
    from solvers.results.files import names_schema

    return names_schema(path)
