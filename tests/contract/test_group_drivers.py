"""What every driver of control groups promises: version 1 and 2 of the kernel, and 2 over a plain folder of files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cardcage.launch.exits import Evidence
from cardcage.launch.groups import RECENT_S, evidence_of
from cardcage.sandbox.control_groups import ControlGroup, GroupDriver, LimitHits
from cardcage.sandbox.control_groups_v2 import DelegatedFolder, LayoutV2
from cardcage.sandbox.group_folders import FolderDriver, GroupFiles, HostFolder, sweep
from cardcage.sandbox.group_search import find_groups
from cardcage.sandbox.plan import ResourceLimits

LIMITS = ResourceLimits(memory_bytes=64 << 20, cpu_cores=0.2, processes=10)

CONTROLLER_FILES = {
    "memory": {
        "memory.max": "max\n",
        "memory.swap.max": "max\n",
        "memory.oom.group": "0\n",
        "memory.current": "0\n",
        "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    },
    "cpu": {
        "cpu.max": "max 100000\n",
    },
    "pids": {"pids.max": "max\n", "pids.current": "0\n", "pids.events": "max 0\n"},
}
CPU_STAT = "usage_usec 0\nuser_usec 0\nsystem_usec 0\n"
CPU_STAT_LIMITED = f"{CPU_STAT}nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"


class FakeTree(GroupFiles):
    """Version 2 as the kernel's documents describe it: groups show the files of the controllers handed down to them."""

    def __init__(self, root: Path, *, offers: str = "cpu memory pids", processes: str = "") -> None:
        """`processes` are those of the group that the host is in; with any in it nothing can be handed down."""
        self.root = root
        self.offers = offers
        root.mkdir()
        self._fill(root, offers.split())
        self.set(root, "cgroup.procs", processes)

    def set(self, folder: Path, name: str, text: str) -> None:
        (folder / name).write_text(text)

    def _fill(self, folder: Path, controllers: list[str]) -> None:
        for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.kill"):
            self.set(folder, name, "")
        self._show(folder, controllers)

    def _show(self, folder: Path, controllers: list[str]) -> None:
        self.set(folder, "cgroup.controllers", " ".join(controllers))
        self.set(folder, "cpu.stat", CPU_STAT_LIMITED if "cpu" in controllers else CPU_STAT)
        for controller in controllers:
            for name, text in CONTROLLER_FILES.get(controller, {}).items():
                self.set(folder, name, text)

    def make(self, folder: Path) -> None:
        super().make(folder)
        self._fill(folder, (folder.parent / "cgroup.subtree_control").read_text().split())

    def remove(self, folder: Path) -> None:
        if any(child.is_dir() for child in folder.iterdir()) or (folder / "cgroup.procs").read_text().strip():
            raise OSError(16, "Device or resource busy", str(folder))
        shutil.rmtree(folder)

    def write(self, path: Path, text: str) -> None:
        if path.name == "cgroup.subtree_control":
            self._hand_down(path, text)
        elif path.name == "cgroup.procs":
            self._move(path.parent, text)
        elif path.name == "cgroup.kill":
            self.set(path.parent, "cgroup.procs", "")
        else:
            super().write(path, f"{text}\n")

    def _move(self, folder: Path, pid: str) -> None:
        if (folder / "cgroup.subtree_control").read_text().split():
            raise OSError(16, "Device or resource busy", str(folder))
        for procs in (*self.root.rglob("cgroup.procs"),):
            kept = [line for line in procs.read_text().split() if line != pid]
            procs.write_text("".join(f"{line}\n" for line in kept))
        self.set(folder, "cgroup.procs", f"{(folder / 'cgroup.procs').read_text()}{pid}\n")

    def _hand_down(self, path: Path, text: str) -> None:
        if path.parent.joinpath("cgroup.procs").read_text().strip():
            raise OSError(16, "Device or resource busy", str(path))
        enabled = set(path.read_text().split())
        offered = path.parent.joinpath("cgroup.controllers").read_text().split()
        below = " ".join((child / path.name).read_text() for child in path.parent.iterdir() if child.is_dir()).split()
        for word in text.split():
            if word[0] == "-" and word[1:] in below:
                raise OSError(16, "Device or resource busy", str(path))
            if word[1:] not in offered:
                raise OSError(2, "No such file or directory", str(path))
            enabled = enabled | {word[1:]} if word[0] == "+" else enabled - {word[1:]}
        path.write_text(" ".join(sorted(enabled)))
        for child in path.parent.iterdir():
            if child.is_dir():
                self._show(child, sorted(enabled))


@pytest.fixture(params=["kernel", "v2 as files"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GroupDriver]:
    made = _of_the_kernel() if request.param == "kernel" else _over_files(tmp_path / "tree")
    yield made
    made.close()


def _of_the_kernel() -> GroupDriver:
    found = find_groups()
    if found.driver is None:
        pytest.skip(f"must run as root, or where control groups are delegated: {found.why_not}")
    return found.driver


def _over_files(root: Path) -> FolderDriver:
    tree = FakeTree(root)
    folder = DelegatedFolder(tree.root, tree)
    return FolderDriver(LayoutV2(), dict.fromkeys(folder.controllers, folder.path), (folder,), tree)


@pytest.fixture
def kernel_driver() -> Iterator[GroupDriver]:
    made = _of_the_kernel()
    yield made
    made.close()


def test_a_new_group_uses_nothing_and_has_run_into_nothing(driver: GroupDriver) -> None:
    group = driver.make("ocr/main", LIMITS)
    usage = group.usage()
    assert (usage.processes, usage.cpu_s, usage.memory_bytes) == (0, 0, 0)
    assert group.hits() == LimitHits()
    assert group.keeps == driver.keeps == {"memory", "cpu", "pids"}
    group.remove()


def test_a_removed_group_leaves_no_folder_and_no_descriptor(driver: GroupDriver) -> None:
    driver.make("warm", LIMITS).remove()
    before = (_folders(driver), len(os.listdir("/proc/self/fd")))
    group = driver.make("ocr", LIMITS)
    assert _folders(driver) > before[0]
    assert group.remove()
    assert group.remove(), "a second time is harmless"
    assert (_folders(driver), len(os.listdir("/proc/self/fd"))) == before
    assert group.usage().processes in (0, None), "an ended group uses nothing"


def test_two_groups_of_one_name_are_two_groups(driver: GroupDriver) -> None:
    first, second = driver.make("ocr", LIMITS), driver.make("ocr", LIMITS)
    first.remove()
    assert second.usage().processes == 0
    second.remove()


@pytest.mark.parametrize("name", ["../../escape", "a/b", "..", "\n", "x" * 300, "ünïcode"])
def test_no_name_leads_out_of_the_hosts_folder(driver: GroupDriver, name: str) -> None:
    before = _folders(driver)
    group = driver.make(name, LIMITS)
    assert all("escape" not in folder or "cardcage-" in folder for folder in _folders(driver) - before)
    group.remove()
    assert _folders(driver) == before


def test_closing_a_driver_removes_what_is_left(driver: GroupDriver) -> None:
    driver.make("ocr", LIMITS)
    driver.close()
    driver.close()


def test_a_process_is_in_the_group_from_its_first_word_on(kernel_driver: GroupDriver) -> None:
    with Member(kernel_driver) as (group, process):
        assert group.usage().processes == 1
        assert (group.usage().memory_bytes or 0) > 0
        process.kill()
        process.wait()
        assert group.usage().processes == 0


def test_who_walls_it_in_is_not_counted(kernel_driver: GroupDriver) -> None:
    with Member(kernel_driver, own_processes=1) as (group, _):
        assert group.usage().processes == 0


def test_killing_a_group_ends_all_in_it_and_those_that_are_being_forked(kernel_driver: GroupDriver) -> None:
    breeder = "import os\nwhile True:\n try:\n  os.fork()\n except OSError: os.write(1, b'.')"
    with Member(kernel_driver, breeder) as (group, process):
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        group.kill()
        assert process.wait(30) == -signal.SIGKILL
        assert group.hits().process_refusals > 0, "it was held to its number"
        assert group.remove(), "nothing alive is left in it"


def test_a_refused_process_explains_an_end_that_follows_soon_and_no_later_one(tmp_path: Path) -> None:
    driver = _over_files(tmp_path / "tree")
    group = driver.make("p", LIMITS)
    assert group.hits().process_refusals == 0
    assert group.refused_at_s is None
    assert not evidence_of(group, Evidence()).process_limit_hit
    told = next(path for path in driver.folders[0].glob("*/pids.events"))
    began_s = time.monotonic()
    told.write_text("max 3\n")
    assert evidence_of(group, Evidence()).process_limit_hit, "seen at the end for the first time"
    first_s = group.refused_at_s
    assert first_s is not None
    assert first_s >= began_s
    group.hits()
    assert group.refused_at_s == first_s, "nothing was refused since"
    assert evidence_of(group, Evidence(), first_s + RECENT_S).process_limit_hit
    assert not evidence_of(group, Evidence(), first_s + RECENT_S + 0.1).process_limit_hit
    told.write_text("max 4\n")
    assert evidence_of(group, Evidence()).process_limit_hit
    assert group.refused_at_s > first_s
    driver.close()


def test_more_memory_than_the_limit_is_a_kill_that_is_counted(kernel_driver: GroupDriver) -> None:
    with Member(kernel_driver, "x = bytearray(b'x' * (128 << 20))") as (group, process):
        assert process.wait(30) == -signal.SIGKILL
        assert group.hits().oom_kills == 1


def test_cpu_time_is_counted_and_held(kernel_driver: GroupDriver) -> None:
    code = "import time\nwhile time.process_time() < 0.5: pass"
    began_s = time.monotonic()
    with Member(kernel_driver, code) as (group, process):
        assert process.wait(60) == 0
        used_s = group.usage().cpu_s or 0
        assert used_s >= 0.45
        assert used_s / (time.monotonic() - began_s) <= 0.2 * 1.1


def test_removing_a_group_ends_what_is_left_in_it(kernel_driver: GroupDriver) -> None:
    with Member(kernel_driver) as (group, process):
        assert group.remove()
        assert process.wait(30) == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["kernel", "files"])
def test_groups_of_a_living_host_stay_and_those_of_a_dead_one_are_swept(kind: str, tmp_path: Path) -> None:
    tree = FakeTree(tmp_path / "tree")
    base = tree.root if kind == "files" else _base_of_the_kernel()
    code = (
        "import sys\nfrom pathlib import Path\nfrom cardcage.sandbox.group_folders import HostFolder\n"
        "folder = HostFolder(Path(sys.argv[1]))\nprint(folder.path, flush=True)\nsys.stdin.read()"
    )
    host = subprocess.Popen([sys.executable, "-c", code, str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert host.stdout is not None
    folder = Path(host.stdout.readline().decode().strip())
    if kind == "files":
        tree.set(folder, "cgroup.procs", "")
        sweep(base, tree)
    else:
        (folder / "1-ocr").mkdir()
        sweep(base)
    assert folder.is_dir(), "its host lives"
    host.kill()
    host.wait()
    host.stdout.close()
    assert host.stdin is not None
    host.stdin.close()
    sweep(base, tree) if kind == "files" else sweep(base)
    assert not folder.exists()


def test_a_group_that_is_merely_called_like_ours_is_left_alone(tmp_path: Path) -> None:
    tree = FakeTree(tmp_path / "tree")
    others = [tree.root / name for name in ("cardcage-daemon.service", "cardcage-123-1", "my-cardcage-0123456789ab")]
    for folder in others:
        tree.make(folder)
    abandoned = tree.root / "cardcage-daemon.service" / "cardcage-0123456789ab"
    tree.make(abandoned)
    assert sweep(tree.root, tree) == 1
    assert all(folder.is_dir() for folder in others)
    assert not abandoned.exists()


def test_what_a_dead_host_had_started_besides_plugins_is_not_ended(tmp_path: Path) -> None:
    tree = FakeTree(tmp_path / "tree")
    folder = tree.root / "cardcage-0123456789ab"
    tree.write(tree.root / "cgroup.subtree_control", "+pids")
    for path in (folder, folder / "host", folder / "1-ocr"):
        tree.make(path)
    bystander = subprocess.Popen(["sleep", "600"])
    tree.set(folder / "host", "cgroup.procs", f"{bystander.pid}\n")
    sweep(tree.root, tree)
    assert bystander.poll() is None
    assert (folder / "host").is_dir()
    assert (folder / "pids.max").read_text() == "max\n", "nor kept from starting others"
    assert not (folder / "1-ocr").exists()
    bystander.kill()
    bystander.wait()


def test_a_host_that_dies_by_kill_leaves_nothing_after_the_next_one_has_started() -> None:
    _of_the_kernel().close()
    code = (
        "import os, signal\nfrom cardcage.sandbox.group_search import find_groups\n"
        "from cardcage.sandbox.plan import ResourceLimits\n"
        "driver = find_groups().driver\n"
        "for name in ('a', 'b'): driver.make(name, ResourceLimits(memory_bytes=1 << 26))\n"
        "print(*driver.folders, sep='\\n', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.PIPE, text=True)
    assert died.returncode == -signal.SIGKILL
    left = [Path(line) for line in died.stdout.splitlines()]
    assert left
    _of_the_kernel().close()
    assert [folder for folder in left if folder.exists()] == []


def _base_of_the_kernel() -> Path:
    """The folder in which hosts make theirs, of any one controller."""
    driver = _of_the_kernel()
    driver.close()
    return driver.folders[0].parent


class Member:
    """A group with a process in it that sleeps, or runs `code`, from the moment on at which it has entered."""

    def __init__(self, driver: GroupDriver, code: str = "import time; time.sleep(600)", own_processes: int = 0) -> None:
        self._driver, self._code, self._own_processes = driver, code, own_processes

    def __enter__(self) -> tuple[ControlGroup, subprocess.Popen[bytes]]:
        self._group = self._driver.make("member", LIMITS, own_processes=self._own_processes)
        enter = f"import os\nfor entry in {self._group.entries}: os.write(entry, b'0')\nprint('in', flush=True)\n"
        self._process = subprocess.Popen(
            [sys.executable, "-c", enter + self._code], pass_fds=self._group.entries, stdout=subprocess.PIPE
        )
        self._group.close_entries()
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"in\n"
        return self._group, self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._group.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._group.remove()


def _folders(driver: GroupDriver) -> set[str]:
    """Every folder of this driver: other hosts on the machine make and remove their own meanwhile."""
    return {folder for place in driver.folders for folder, _, _ in os.walk(place)}


class TestVersionTwoAsFiles:
    """The formats of version 2, held against the kernel's documents."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> FakeTree:
        return FakeTree(tmp_path / "tree")

    @pytest.fixture
    def folder(self, tree: FakeTree) -> DelegatedFolder:
        return DelegatedFolder(tree.root, tree)

    @pytest.fixture
    def files_driver(self, tree: FakeTree, folder: DelegatedFolder) -> FolderDriver:
        return FolderDriver(LayoutV2(), dict.fromkeys(folder.controllers, folder.path), (folder,), tree)

    def _group_folder(self, folder: DelegatedFolder) -> Path:
        return next(path for path in folder.path.iterdir() if path.is_dir())

    def test_limits_are_written_as_the_kernel_reads_them(
        self, files_driver: FolderDriver, folder: DelegatedFolder
    ) -> None:
        files_driver.make("ocr", LIMITS, own_processes=1)
        place = self._group_folder(folder)
        written = {
            name: (place / name).read_text().strip()
            for name in ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max")
        }
        assert written == {
            "memory.max": "67108864",
            "memory.swap.max": "0",
            "memory.oom.group": "1",
            "cpu.max": "20000 100000",
            "pids.max": "11",
        }

    def test_what_is_not_limited_is_left_alone(self, files_driver: FolderDriver, folder: DelegatedFolder) -> None:
        files_driver.make("ocr", ResourceLimits())
        assert (self._group_folder(folder) / "memory.max").read_text() == "max\n"

    def test_use_and_hits_are_read_from_where_the_kernel_writes_them(
        self, tree: FakeTree, files_driver: FolderDriver, folder: DelegatedFolder
    ) -> None:
        group = files_driver.make("ocr", LIMITS, own_processes=1)
        place = self._group_folder(folder)
        tree.set(place, "memory.current", "4096\n")
        tree.set(place, "pids.current", "3\n")
        tree.set(place, "cpu.stat", "usage_usec 1500000\nnr_periods 9\nnr_throttled 7\nthrottled_usec 250000\n")
        tree.set(place, "memory.events", "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 1\n")
        tree.set(place, "pids.events", "max 5\n")
        usage, hits = group.usage(), group.hits()
        assert (usage.memory_bytes, usage.cpu_s, usage.processes) == (4096, 1.5, 2)
        assert (hits.oom_kills, hits.process_refusals, hits.throttled_periods) == (1, 5, 7)
        assert hits.throttled_s == 0.25

    def test_a_kernel_without_swap_accounting_is_no_obstacle(self, tree: FakeTree, folder: DelegatedFolder) -> None:
        class Older(type(tree)):  # pyright: ignore[reportUntypedBaseClass]
            def write(self, path: Path, text: str) -> None:
                if path.name == "memory.swap.max":
                    raise FileNotFoundError(2, "No such file or directory", str(path))
                super().write(path, text)

        tree.__class__ = Older
        driver = FolderDriver(LayoutV2(), dict.fromkeys(folder.controllers, folder.path), (folder,), tree)
        assert driver.make("ocr", LIMITS).keeps == {"memory", "cpu", "pids"}

    def test_a_limit_that_is_refused_is_an_error_and_leaves_nothing(
        self, tree: FakeTree, files_driver: FolderDriver, folder: DelegatedFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(path: Path, text: str) -> None:
            if path.name == "memory.max":
                raise OSError(22, "Invalid argument", str(path))
            FakeTree.write(tree, path, text)

        monkeypatch.setattr(tree, "write", refuse)
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="Invalid argument"):
            files_driver.make("ocr", LIMITS)
        assert not [path for path in folder.path.iterdir() if path.is_dir()]
        assert len(os.listdir("/proc/self/fd")) == before

    def test_only_what_was_handed_down_is_kept(self, tmp_path: Path) -> None:
        tree = FakeTree(tmp_path / "part", offers="pids hugetlb")
        assert DelegatedFolder(tree.root, tree).controllers == {"pids"}

    def test_a_group_without_these_controllers_says_so(self, tmp_path: Path) -> None:
        tree = FakeTree(tmp_path / "none", offers="hugetlb")
        folder = DelegatedFolder(tree.root, tree)
        assert not folder.controllers
        assert folder.problem == "its group has none of the controllers memory, cpu and pids"

    def test_a_host_alone_in_its_group_moves_aside_and_back(self, tmp_path: Path) -> None:
        tree = FakeTree(tmp_path / "own", processes=f"{os.getpid()}\n")
        folder = DelegatedFolder(tree.root, tree)
        assert folder.controllers == {"memory", "cpu", "pids"}
        assert (folder.path / "host" / "cgroup.procs").read_text() == f"{os.getpid()}\n"
        folder.close()
        assert (tree.root / "cgroup.procs").read_text() == f"{os.getpid()}\n"
        assert (tree.root / "cgroup.subtree_control").read_text() == ""
        assert not folder.path.exists()

    def test_a_host_among_others_moves_nobody(self, tmp_path: Path) -> None:
        tree = FakeTree(tmp_path / "shared", processes=f"{os.getpid()}\n1\n")
        folder = DelegatedFolder(tree.root, tree)
        assert not folder.controllers
        assert "handed down" in folder.problem
        assert (tree.root / "cgroup.procs").read_text() == f"{os.getpid()}\n1\n"
        folder.close()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        HostFolder(tmp_path / "absent")
