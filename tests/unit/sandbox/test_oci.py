"""A plan in an OCI runtime's words, and in podman's: what is asked for, and that nothing of the plan is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cardcage.launch import podman
from cardcage.launch.bundle import Bundle
from cardcage.permissions import Permission
from cardcage.sandbox.oci import oci_config, rootfs_entries, seccomp_profile
from cardcage.sandbox.plan import PlanRequest, ResourceLimits, SandboxPlan, make_plan
from cardcage.sandbox.profile import profile
from cardcage.sandbox.python_layout import core_libraries, find_python_layout
from cardcage.sandbox.report import MachineReport, Mode

MACHINE = MachineReport(system="Linux", kernel="6.1", architecture="x86_64", mode=Mode.ROOT, uid=0, gid=0, layers=())


def plan_of(folder: Path, *permissions: str, uid: int | None = 61_000) -> SandboxPlan:
    folders = {name: folder / name for name in ("package", "data", "temp")}
    for path in folders.values():
        path.mkdir(exist_ok=True)
    return make_plan(
        PlanRequest(
            plugin="parrot",
            version="1.0.0",
            instance="parrot",
            isolation="container",
            package_dir=folders["package"],
            data_dir=folders["data"],
            temp_dir=folders["temp"],
            library_dirs=core_libraries(),
            python=find_python_layout(),
            permissions=tuple(map(Permission.parse, permissions)),
            limits=ResourceLimits(open_files=99),
            uid=uid,
        ),
        MACHINE,
    )


def config_of(plan: SandboxPlan, **more: Any) -> dict[str, Any]:
    return oci_config(plan, command=("/bin/true",), host_ids=(61_000, 61_000), **more)


def test_the_first_process_gets_what_it_needs_to_finish_the_walls_and_nothing_else(tmp_path: Path) -> None:
    config = config_of(plan_of(tmp_path))
    process = config["process"]
    assert all(names == ["CAP_SETPCAP", "CAP_SYS_ADMIN"] for names in process["capabilities"].values())
    assert process["noNewPrivileges"] is True
    assert process["env"] == []
    assert (process["user"]["uid"], process["user"]["gid"]) == (1000, 1000)
    assert config["root"]["readonly"] is True
    assert config.get("hooks") is None


def test_namespaces_are_asked_for_but_for_those_made_inside_and_one_user_is_mapped(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    linux = config_of(plan)["linux"]
    assert {each["type"] for each in linux["namespaces"]} | {"cgroup", "time"} == set(plan.namespaces)
    assert linux["uidMappings"] == [{"containerID": 1000, "hostID": 61_000, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 1000, "hostID": 61_000, "size": 1}]


def test_every_mount_of_the_plan_is_there_as_the_plan_says(tmp_path: Path) -> None:
    (tmp_path / "bills").mkdir()
    plan = plan_of(tmp_path, f"read:{tmp_path}/bills/", f"write:{tmp_path}/out/")
    mounted = {each["destination"]: each for each in config_of(plan)["mounts"]}
    for one in plan.mounts:
        if one.kind == "bind":
            options = mounted[one.target]["options"]
            assert mounted[one.target]["source"] == one.source
            assert ("rw" in options, "noexec" not in options) == (one.writable, one.executable)
            assert {"nosuid", "nodev"} <= set(options)
        if one.kind == "tmpfs":
            assert f"size={one.size_bytes}" in mounted[one.target]["options"]
            assert f"nr_inodes={one.inodes}" in mounted[one.target]["options"]
    masked = config_of(plan)["linux"]["maskedPaths"]
    assert {one.target for one in plan.mounts if one.kind == "mask"} <= set(masked)


def test_optional_mounts_that_the_host_does_not_have_are_left_out(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    optional = next(one.target for one in plan.mounts if one.optional)
    there = {each["destination"] for each in config_of(plan, without=[optional])["mounts"]}
    assert optional not in there


def test_a_granted_file_of_another_owner_is_shown_id_mapped(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    mounts = config_of(plan, id_maps={"/plugin": (7, 8)})["mounts"]
    options = next(each["options"] for each in mounts if each["destination"] == "/plugin")
    assert "idmap=uids=7-61000-1;gids=8-61000-1" in options


def test_rights_over_its_own_network_are_given_only_where_endpoints_are_granted(tmp_path: Path) -> None:
    granted = config_of(plan_of(tmp_path, "network:api.example.com:443"))["process"]["capabilities"]
    assert granted["effective"] == ["CAP_SETPCAP", "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"]


def test_the_root_folder_holds_a_place_for_every_mount(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    bundle = Bundle(tmp_path / "bundle", plan, find_python_layout(), host_ids=(61_000, 61_000))
    bundle.make()
    root = tmp_path / "bundle" / "rootfs"
    config = json.loads((tmp_path / "bundle" / "config.json").read_text())
    for each in config["mounts"]:
        if not each["destination"].startswith("/dev/"):
            assert (root / each["destination"].lstrip("/")).exists(), each["destination"]
    assert (root / "etc" / "hosts").read_text().startswith("127.0.0.1 localhost")
    assert len(rootfs_entries(plan)) > 10
    assert (tmp_path / "bundle" / "config.json").stat().st_mode & 0o777 == 0o600
    bundle.remove()
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("missing", ["data", "package"])
def test_a_source_that_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    plan = plan_of(tmp_path)
    (tmp_path / missing).rmdir()
    with pytest.raises(FileNotFoundError, match=missing):
        Bundle(tmp_path / "bundle", plan, find_python_layout(), host_ids=(1, 1)).make()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_allows_what_ours_does_and_refuses_what_ours_refuses(machine: str) -> None:
    ours, theirs = profile(execute=True, machine=machine), seccomp_profile(machine)
    allowed = {name for rule in theirs["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    refused = {name for rule in theirs["syscalls"] if rule["action"] == "SCMP_ACT_ERRNO" for name in rule["names"]}
    assert {*ours.allowed, *ours.conditional} <= allowed
    assert not {*ours.absent} & allowed
    added = {
        "seccomp",
        "landlock_create_ruleset",
        "landlock_add_rule",
        "landlock_restrict_self",
        "capset",
        "prctl",
        "unshare",
    }
    wanted = {name for names in ours.refused.values() for name in names}
    assert wanted - refused <= added
    assert not refused & allowed
    made = [rule["args"] for rule in theirs["syscalls"] if rule["names"] == ["unshare"]]
    assert [args[0]["valueTwo"] for args in made] == [0x02000000, 0x80], "cgroup and time, and no other namespace"
    assert (theirs["defaultAction"], theirs["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)


def test_conditions_on_arguments_are_said_where_the_form_can_say_them() -> None:
    rules = [rule for rule in seccomp_profile("x86_64")["syscalls"] if rule.get("args")]
    (clone,) = [rule for rule in rules if rule["names"] == ["clone"]]
    assert clone["args"] == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    families = {rule["args"][0]["valueTwo"] for rule in rules if rule["names"] == ["socket"]}
    assert families == {1, 2, 10, 16}, "UNIX, INET, INET6, and netlink for the first process"
    for rule in rules:
        indices = [each["index"] for each in rule["args"]]
        assert len(indices) == len(set(indices)), "libseccomp compares each argument once"


def test_podman_is_told_the_same(tmp_path: Path) -> None:
    (tmp_path / "bills").mkdir()
    plan = plan_of(tmp_path, f"read:{tmp_path}/bills/", "network:api.example.com:443")
    arguments = podman.run_arguments(config_of(plan), bundle=tmp_path, name="one", preserved=4)
    for wanted in (
        "--read-only",
        "--network=none",
        "--cap-drop=all",
        "--cap-add=CAP_NET_ADMIN",
        "--security-opt=no-new-privileges",
        "--uidmap=1000:61000:1",
        "--user=1000:1000",
        "--ulimit=nofile=99:99",
        "--preserve-fds=4",
        "--cgroups=disabled",
    ):
        assert wanted in arguments
    volumes = [arguments[place + 1] for place, each in enumerate(arguments) if each == "--volume"]
    assert f"{tmp_path}/bills:{tmp_path}/bills:rbind,nosuid,nodev,noexec,ro" in volumes
    assert len(volumes) == sum(one.kind == "bind" for one in plan.mounts)
    assert arguments[-1] == "/bin/true"


def test_a_path_that_podmans_command_line_cannot_spell_is_refused(tmp_path: Path) -> None:
    odd = tmp_path / "a:b"
    odd.mkdir()
    config = config_of(plan_of(tmp_path, f"read:{odd}/"))
    with pytest.raises(ValueError, match="cannot spell the path"):
        podman.run_arguments(config, bundle=tmp_path, name="one", preserved=4)


def test_an_ordinary_users_plan_has_no_user_of_its_own(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, uid=None)
    config = oci_config(plan, command=("/bin/true",), host_ids=(1001, 1001))
    assert config["linux"]["uidMappings"] == [{"containerID": 1000, "hostID": 1001, "size": 1}]
