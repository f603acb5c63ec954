"""Where control groups are found, from what /proc says of mounts and of this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from cardcage.sandbox.control_groups_v1 import LayoutV1, cpu_quota_us, find_places
from cardcage.sandbox.control_groups_v2 import find_place
from cardcage.sandbox.plan import ResourceLimits

SEPARATE = """\
30 25 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
31 25 0:27 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
32 25 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 25 0:29 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
34 25 0:30 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
35 25 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
TOGETHER = """\
30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 / /sys/fs/cgroup/memory rw,nosuid shared:10 - cgroup cgroup rw,memory
"""
UNIFIED = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
SYS = Path("/sys/fs/cgroup")


def test_each_controller_has_its_own_group_which_need_not_be_the_root() -> None:
    own = "9:pids:/\n4:memory:/some/where\n2:cpuacct:/\n1:cpu:/busy\n0::/\n"
    assert find_places(SEPARATE, own) == {
        "cpu": SYS / "cpu/busy",
        "cpuacct": SYS / "cpuacct",
        "memory": SYS / "memory/some/where",
        "pids": SYS / "pids",
    }


def test_controllers_that_are_mounted_together_share_a_folder() -> None:
    places = find_places(TOGETHER, "5:cpu,cpuacct:/user.slice\n4:memory:/user.slice\n")
    assert places["cpu"] == places["cpuacct"] == SYS / "cpu,cpuacct/user.slice"
    assert "pids" not in places


def test_a_container_that_is_shown_its_own_part_finds_itself_in_it() -> None:
    mounts = "30 25 0:26 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    assert find_places(mounts, "4:memory:/docker/abc\n") == {"memory": SYS / "memory"}
    assert find_places(mounts, "4:memory:/docker/abc/inner\n") == {"memory": SYS / "memory/inner"}
    assert find_places(mounts, "4:memory:/\n") == {"memory": SYS / "memory"}, "in a namespace of its own"


@pytest.mark.parametrize("own", ["4:memory:/docker/xyz\n", "4:memory:/docker/abcdef\n", "4:memory:/../other\n", ""])
def test_a_group_that_is_not_shown_is_left_out(own: str) -> None:
    mounts = "30 25 0:26 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    assert find_places(mounts, own) == {}


@pytest.mark.parametrize(
    ("own", "place"),
    [
        ("0::/\n", SYS),
        ("0::/user.slice/run-1.scope\n", SYS / "user.slice/run-1.scope"),
        ("0::/run-1.scope/cardcage-0123456789ab/host\n", SYS / "run-1.scope"),
        ("0::/cardcage-0123456789ab/host\n", SYS),
        ("0::/cardcage-daemon/host\n", SYS / "cardcage-daemon/host"),
        ("4:memory:/\n", None),
    ],
)
def test_in_version_2_there_is_one_group_and_who_moved_aside_is_found_where_it_came_from(
    own: str, place: Path | None
) -> None:
    assert find_place(UNIFIED, own) == place


def test_without_version_2_there_is_no_place() -> None:
    assert find_place(TOGETHER, "0::/\n") is None


def test_limits_of_version_1_are_written_in_its_units() -> None:
    limits = ResourceLimits(memory_bytes=64 << 20, cpu_cores=0.2, processes=10)
    written = {write.file: write.text for write in LayoutV1().writes(limits, own_processes=1)}
    assert written == {
        "memory.limit_in_bytes": "67108864",
        "memory.memsw.limit_in_bytes": "67108864",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "20000",
        "pids.max": "11",
    }


def test_the_least_share_is_what_the_kernel_takes() -> None:
    assert cpu_quota_us(0.001) == 1000
    assert cpu_quota_us(2.5) == 250_000
