"""What is decided about a process's walls, without putting any up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage.foundation.errors import Refused
from cardcage.permissions import Permission
from cardcage.sandbox.plan import (
    MEMORY_BACKSTOP_BYTES,
    PlanRequest,
    PythonLayout,
    ResourceLimits,
    SandboxPlan,
    make_plan,
)
from cardcage.sandbox.report import Layer, LayerName, LayerStatus, MachineReport, Mode

PYTHON = PythonLayout(
    executable="/opt/python/bin/python3.12",
    version="3.12",
    stdlib="/home/ada/.pyenv/versions/3.12.1/lib/python3.12",
    hidden=("site-packages",),
    system_dirs=("/usr/lib", "/etc/ssl/certs"),
    system_links={"/lib": "usr/lib"},
)


def machine(mode: Mode = Mode.ROOT) -> MachineReport:
    return MachineReport(
        system="Linux", kernel="6.12", architecture="x86_64", mode=mode, uid=0, gid=0, layers=(), landlock_abi=6
    )


def request(*permissions: str, **more: Any) -> PlanRequest:
    settings: dict[str, Any] = {
        "plugin": "ocr",
        "version": "1.2.0",
        "instance": "ocr",
        "package_dir": Path("/srv/plugins/ocr"),
        "data_dir": Path("/var/lib/cardcage/ocr/data"),
        "temp_dir": Path("/var/lib/cardcage/ocr/temp"),
        "python": PYTHON,
        "library_dirs": (("msgspec", Path("/home/ada/env/msgspec")), ("six", Path("/home/ada/env/six.py"))),
        "permissions": tuple(map(Permission.parse, permissions)),
        "uid": 61_234,
    }
    return PlanRequest(**settings | more)


def test_without_a_grant_it_sees_its_own_folders_and_the_systems_and_no_other_of_the_host() -> None:
    plan = make_plan(request(), machine())
    shown = {mount.source for mount in plan.mounts if mount.kind == "bind"}
    assert shown == {
        "/usr/lib",
        "/etc/ssl/certs",
        "/home/ada/.pyenv/versions/3.12.1/lib/python3.12",
        "/home/ada/env/msgspec",
        "/home/ada/env/six.py",
        "/srv/plugins/ocr",
        "/var/lib/cardcage/ocr/data",
    }
    assert [mount.target for mount in plan.mounts if mount.writable] == ["/dev/shm", "/data", "/tmp"]
    assert plan.network.endpoints == ()
    assert not plan.system_calls.execute


def test_no_path_inside_tells_where_the_host_keeps_its_python() -> None:
    plan = make_plan(request(), machine())
    assert not [mount.target for mount in plan.mounts if "ada" in mount.target]
    assert "/cardcage/lib/six.py" in {mount.target for mount in plan.mounts}
    assert all(path.startswith(("/cardcage/", "/plugin")) for path in plan.python_path)


def test_the_hosts_installed_packages_are_hidden() -> None:
    plan = make_plan(request(), machine())
    order = [(mount.kind, mount.target) for mount in plan.mounts]
    stdlib = "/cardcage/python/lib/python3.12"
    assert order.index(("bind", stdlib)) < order.index(("mask", f"{stdlib}/site-packages"))


def test_grants_appear_at_their_own_place_wider_before_narrower() -> None:
    plan = make_plan(request("write:/srv/bills/reports/", "read:/srv/bills/", "read:/srv/rates.csv"), machine())
    granted = [(mount.target, mount.writable, mount.whole_folder) for mount in plan.mounts if mount.granted][1:]
    assert granted == [
        ("/srv/bills", False, True),
        ("/srv/rates.csv", False, False),
        ("/srv/bills/reports", True, True),
    ]
    assert "/srv/bills/reports/" in plan.landlock.write
    assert "/srv/bills/reports/" not in plan.landlock.read


def test_the_temporary_folder_is_mounted_before_what_is_shown_in_it() -> None:
    plan = make_plan(request("read:/tmp/bill.csv"), machine())
    targets = [mount.target for mount in plan.mounts]
    assert targets.index("/tmp") < targets.index("/tmp/bill.csv")


def test_capabilities_and_secrets_mount_nothing() -> None:
    plain, granted = make_plan(request(), machine()), make_plan(request("capability:ReadCostData"), machine())
    assert plain.mounts == granted.mounts


def test_network_grants_are_carried_as_data() -> None:
    plan = make_plan(request("network:api.example.com:443"), machine())
    assert plan.network.endpoints == ("api.example.com:443",)
    assert "network" in plan.namespaces


def test_programs_are_shown_and_may_be_executed_only_where_granted() -> None:
    plan = make_plan(request("subprocess:/usr/bin/git"), machine())
    assert plan.system_calls.execute
    assert "/usr/bin/git" in plan.landlock.execute
    assert "/data" not in plan.landlock.execute


def test_root_gives_each_instance_its_uid_and_a_user_keeps_its_own() -> None:
    as_root, as_user = make_plan(request(), machine()), make_plan(request(), machine(Mode.USER))
    assert (as_root.identity.outside_uid, as_user.identity.outside_uid) == (61_234, None)
    assert as_root.identity.inside_uid == as_user.identity.inside_uid == 1000
    assert "own_uid" in as_root.floor
    assert "own_uid" not in as_user.floor


def test_limits_become_bounds_of_the_kernel() -> None:
    limits = ResourceLimits(memory_bytes=1 << 28, open_files=99, processes=5, temp_bytes=1 << 20, cpu_time_s=3)
    plan = make_plan(request(limits=limits), machine())
    assert (
        plan.rlimits.items()
        >= {"DATA": (1 << 28) + MEMORY_BACKSTOP_BYTES, "NOFILE": 99, "NPROC": 6, "CPU": 3, "CORE": 0}.items()
    )
    assert next(mount.size_bytes for mount in plan.mounts if mount.target == "/tmp") == 1 << 20


def test_without_isolation_the_folders_are_the_hosts_and_there_is_no_wall() -> None:
    plan = make_plan(request(isolation="unconfined"), machine(Mode.NONE))
    assert not plan.walled
    assert (plan.inside.package_dir, plan.mounts, plan.floor) == ("/srv/plugins/ocr", (), ())


@pytest.mark.parametrize("path", ["/", "/proc/1/environ", "/dev/mem", "/sys/", "/plugin/", "/data/x", "/cardcage/lib/"])
def test_a_grant_that_would_cover_the_sandbox_is_refused_by_name(path: str) -> None:
    with pytest.raises(Refused, match=r"ocr.*1\.2\.0") as caught:
        make_plan(request(f"read:{path}"), machine())
    assert caught.value.code == "grant_impossible"


_paths = st.lists(st.sampled_from(["srv", "bills", "a", "b.csv", "tmp", "etc"]), min_size=1, max_size=4)


@given(st.lists(st.tuples(st.sampled_from(["read", "write"]), _paths, st.sampled_from(["", "/"])), max_size=5))
def test_a_plan_survives_the_way_to_the_fork_server(grants: list[tuple[str, list[str], str]]) -> None:
    plan = make_plan(request(*(f"{kind}:/{'/'.join(parts)}{end}" for kind, parts, end in grants)), machine())
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=SandboxPlan) == plan
    assert msgspec.json.decode(msgspec.json.encode(plan.to_json()), type=SandboxPlan) == plan


@given(st.sets(st.sampled_from(list(LayerName))), st.sets(st.sampled_from(list(LayerName))), st.sampled_from(Mode))
def test_below_the_floor_is_what_is_asked_and_not_enforced(
    floor: set[LayerName], enforced: set[LayerName], mode: Mode
) -> None:
    layers = tuple(
        Layer(name=name, status=LayerStatus.ENFORCED if name in enforced else LayerStatus.UNAVAILABLE)
        for name in LayerName
    )
    report = MachineReport(system="Linux", kernel="", architecture="", mode=mode, uid=0, gid=0, layers=layers)
    excused = {LayerName.OWN_UID} if mode is Mode.USER else set[LayerName]()
    assert {layer.name for layer in report.below(floor)} == floor - enforced - excused
