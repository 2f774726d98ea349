"""Memory that a job may use: by the system, by control groups of both kinds, and by limits of the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from solvers.memory import INTERPRETER_BYTES, available_memory
from solvers.processors import available_threads

MB = 10**6
GROUP_1, GROUP_2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"
MOUNT_1 = "32 31 0:29 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
MOUNT_2 = "41 31 0:38 {top} /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw"
OTHER_1 = "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"
UNLIMITED_1 = 9223372036854771712
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max data size             {data}            unlimited            bytes
Max stack size            8388608              unlimited            bytes
Max address space         {space}            unlimited            bytes
"""


@pytest.fixture
def machine(tmp_path):
    """Write files of a system with 8 GB available, and return what is then available to a process of `held` kB."""

    def write(files, held=0):
        status = f"Name:\tpython\nVmSize:\t  500000 kB\nVmRSS:\t  {held} kB\nVmData:\t  300000 kB\nThreads:\t3\n"
        given = {"proc/meminfo": "MemTotal:  9000000 kB\nMemAvailable:    8000000 kB\n", "proc/self/status": status}
        for name, text in (given | files).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))
        return available_memory(tmp_path)

    return write


def old(group, limit, used, cache=0, **statistics):
    lines = {"total_inactive_file": cache, "inactive_file": 0} | statistics
    return {
        f"{group}/memory.limit_in_bytes": f"{limit}\n", f"{group}/memory.usage_in_bytes": f"{used}\n",
        f"{group}/memory.stat": "".join(f"{name} {value}\n" for name, value in lines.items()),
    }  # fmt: skip


def new(group, limit, used, cache=0, high="max"):
    return {
        f"{group}/memory.max": f"{limit}\n", f"{group}/memory.high": f"{high}\n",
        f"{group}/memory.current": f"{used}\n", f"{group}/memory.stat": f"anon 5\ninactive_file {cache}\n",
    }  # fmt: skip


def place(groups, *mounts):
    return {"proc/self/cgroup": groups, "proc/self/mountinfo": "\n".join(mounts) + "\n"}


def test_this_machine_has_memory():
    assert 0 < available_memory() < float("inf")


def test_what_is_not_known_is_no_limit(tmp_path):
    assert available_memory(tmp_path) == float("inf")


def test_the_system(machine):
    assert machine({}) == 8_000_000 * 1024
    assert machine({}, held=1000) == 8_001_000 * 1024  # what the process has counts as available to it
    assert machine({}, held=5_000_000) == 8_000_000 * 1024 + INTERPRETER_BYTES  # up to the size of an interpreter


def test_the_newer_control_groups(machine):
    # the smallest of the group itself and those above it, whichever it is; the root has no files
    own, above = f"{GROUP_2}/user/job", f"{GROUP_2}/user"
    files = place("0::/user/job\n", MOUNT_2.format(top="/"))
    assert machine(files | new(own, 700 * MB, 100 * MB) | new(above, "max", 3000 * MB)) == 600 * MB
    assert machine(files | new(own, 700 * MB, 100 * MB) | new(above, 900 * MB, 800 * MB)) == 100 * MB
    assert machine(files | new(own, "max", 100 * MB) | new(above, "max", 100 * MB)) == 8_000_000 * 1024
    assert machine(files | new(own, 700 * MB, 100 * MB, high=400 * MB)) == 300 * MB
    assert machine(files | new(own, 700 * MB, 800 * MB)) == 0


def test_page_cache_that_can_be_taken_back_is_not_in_use(machine):
    files = place("0::/job\n", MOUNT_2.format(top="/"))
    assert machine(files | new(f"{GROUP_2}/job", 700 * MB, 650 * MB, cache=500 * MB)) == 550 * MB
    files = place("4:memory:/job\n", MOUNT_1.format(top="/"))
    assert machine(files | old(f"{GROUP_1}/job", 700 * MB, 650 * MB, cache=500 * MB)) == 550 * MB


def test_what_the_process_holds_is_available_to_it_up_to_the_limit(machine):
    files = place("0::/job\n", MOUNT_2.format(top="/"))
    assert machine(files | new(f"{GROUP_2}/job", 700 * MB, 150 * MB), held=100 * MB // 1024) == pytest.approx(
        650 * MB, abs=1024
    )
    # libraries that another group read first do not count as used here
    assert machine(files | new(f"{GROUP_2}/job", 180 * MB, 20 * MB), held=100 * MB // 1024) == 180 * MB


def test_the_older_control_groups(machine):
    groups = "9:cpu:/elsewhere\n4:hugetlb,memory:/slurm/job\n1:name=systemd:/\n"
    files = place(groups, OTHER_1, MOUNT_1.format(top="/"))
    files |= old(GROUP_1, UNLIMITED_1, 5000 * MB)
    inner, outer = f"{GROUP_1}/slurm/job", f"{GROUP_1}/slurm"
    assert machine(files | old(inner, 700 * MB, 100 * MB) | old(outer, UNLIMITED_1, MB)) == 600 * MB
    assert machine(files | old(inner, UNLIMITED_1, 100 * MB) | old(outer, 900 * MB, 850 * MB)) == 50 * MB


def test_both_kinds_side_by_side(machine):
    # as systemd's hybrid mode: the newer kind is there without controllers
    files = place("4:memory:/job\n0::/job\n", MOUNT_1.format(top="/"), MOUNT_2.format(top="/").replace(
        "/sys/fs/cgroup ", "/sys/fs/cgroup/unified "))  # fmt: skip
    assert machine(files | old(f"{GROUP_1}/job", 700 * MB, 100 * MB)) == 600 * MB
    assert machine(files | new(f"{GROUP_2}/unified/job", 500 * MB, 100 * MB)) == 400 * MB


@pytest.mark.parametrize(
    ("path", "top"),
    [
        ("/docker/abc", "/docker/abc"),  # the group of the container is mounted
        ("/", "/"),  # a namespace of control groups
        ("/../other", "/"),  # moved out of the namespace
        ("/kubepods/pod1/abc", "/kubepods/pod2/xyz"),  # a path that is not mounted
        ("/docker/abcdef", "/docker/abc"),  # a name that begins like another
    ],
)
def test_in_a_container(machine, path, top):
    files = place(f"0::{path}\n", MOUNT_2.format(top=top))
    assert machine(files | new(GROUP_2, 700 * MB, 100 * MB)) == 600 * MB
    files = place(f"4:memory:{path}\n", MOUNT_1.format(top=top))
    assert machine(files | old(GROUP_1, UNLIMITED_1, 100 * MB, hierarchical_memory_limit=500 * MB)) == 400 * MB


def test_a_group_below_what_is_mounted(machine):
    files = place("0::/docker/abc/inner\n", MOUNT_2.format(top="/docker/abc").replace("cgroup rw", r"my\040groups rw"))
    assert machine(files | new("sys/fs/my groups/inner", 700 * MB, 100 * MB)) == 600 * MB


def test_limits_of_the_process(machine):
    unlimited = {"proc/self/limits": LIMITS.format(data="unlimited", space="unlimited")}
    assert machine(unlimited) == 8_000_000 * 1024
    assert machine({"proc/self/limits": LIMITS.format(data=10**9, space="unlimited")}) == 10**9 - 300_000 * 1024
    # each thread reserves address space for its stack and its heap
    left = 5 * 10**9 - 500_000 * 1024 - 72e6 * available_threads()
    assert machine({"proc/self/limits": LIMITS.format(data="unlimited", space=5 * 10**9)}) == max(0.0, left)


FITTED = """
import sys
from flds.__main__ import main
sys.argv[1:] = ['solve', '--fit', '--out', {out!r}]
sys.exit(main())
"""


def within(code, prepare):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=prepare, timeout=300
    )  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="the system does not tell limits")
def test_a_limit_on_address_space_is_kept(tmp_path):
    import resource

    code = (
        "import numpy as np, flds\n"
        "problem = flds.TrainingProblem(np.ones((1, 1)), [1.0], steps=1)\n"
        "try: flds.simulate_resnet(problem, width=12_000, depth=2, operator='dense')\n"  # 2.3 GB
        "except MemoryError as error: print(error)\n"
        "print(flds.simulate_resnet(problem, width=5_000, depth=2, operator='dense').status)\n"  # 0.4 GB
    )

    def limit():
        size = 1500 * MB + int(72e6) * available_threads()
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    done = within(code, limit)
    assert done.returncode == 0, done.stderr
    refused, status = done.stdout.splitlines()
    assert refused.startswith("this run needs 2.5")
    assert status == "completed"


@pytest.fixture
def group(request):
    """A control group of so many MB, where this machine lets us make one and is of the older kind."""
    path = Path("/sys/fs/cgroup/memory") / f"flds_test_{os.getpid()}"
    try:
        path.mkdir()
    except OSError:
        pytest.skip("this machine lets nobody make a control group here")
    try:
        (path / "memory.limit_in_bytes").write_text(str(request.param * MB))
        yield path
    finally:
        path.rmdir()


# Without a group it is 3,000 particles, or what time allows, which is 1,000 at least.
@pytest.mark.parametrize(
    ("group", "most"), [(300, 700), pytest.param(700, 2000, marks=pytest.mark.slow)], indirect=["group"]
)
def test_a_run_that_is_to_fit_keeps_within_a_control_group(group, most, tmp_path):
    out = str(tmp_path / "run.nc")
    done = within(FITTED.format(out=out), lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split()[0]) <= most
