"""How a machine is decided: its size, what QEMU is told, what is refused, and what this computer has for it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from cardcage.foundation.errors import Refused, Unavailable
from cardcage.launch.vm.machine import (
    GUEST_BYTES,
    group_limits,
    guest_plan,
    hypervisor_plan,
    machine_size,
    qemu_arguments,
)
from cardcage.launch.vm.memory import MemoryBudget
from cardcage.permissions import Permission
from cardcage.sandbox import clock_probe, hypervisor
from cardcage.sandbox.hypervisor import Hypervisor, Kernel, find_kernel, module_files
from cardcage.sandbox.plan import MIB, PlanRequest, PythonLayout, ResourceLimits, SandboxPlan, make_plan
from cardcage.sandbox.report import MachineReport, Mode

PYTHON = PythonLayout(
    executable="/usr/bin/python3.11",
    version="3.11",
    stdlib="/usr/lib/python3.11",
    hidden=("site-packages",),
    system_dirs=("/usr/lib", "/etc/ssl/certs"),
    system_links={"/lib": "usr/lib"},
)
KERNEL = Kernel(image=Path("/boot/vmlinuz-6.1.0"), modules=Path("/lib/modules/6.1.0"), version="6.1.0")
EMULATED = Hypervisor(
    qemu=Path("/usr/bin/qemu-system-x86_64"),
    make_file_system=Path("/usr/sbin/mkfs.ext4"),
    kernel=KERNEL,
    kvm=False,
    kvm_detail="there is no /dev/kvm",
)


def plan_of(*permissions: str, limits: ResourceLimits | None = None) -> SandboxPlan:
    request = PlanRequest(
        plugin="ocr",
        version="1.2.0",
        instance="ocr",
        isolation="vm",
        package_dir=Path("/srv/plugins/ocr"),
        data_dir=Path("/srv/state/data/ocr"),
        temp_dir=Path("/srv/state/temp/ocr"),
        python=PYTHON,
        library_dirs=(("msgspec", Path("/opt/site-packages/msgspec")),),
        permissions=tuple(map(Permission.parse, permissions)),
        limits=limits or ResourceLimits(),
        uid=61_000,
    )
    machine = MachineReport(
        system="Linux", kernel="6.1", architecture="x86_64", mode=Mode.ROOT, uid=0, gid=0, layers=()
    )
    return make_plan(request, machine)


def test_a_plugin_has_its_memory_limit_to_itself() -> None:
    size = machine_size(ResourceLimits(memory_bytes=64 * MIB, cpu_cores=1.5, disk_bytes=5 * MIB))
    assert size.memory_bytes == 64 * MIB + GUEST_BYTES
    assert (size.cpus, size.disk_bytes, size.plugin_memory_bytes) == (2, 5 * MIB, 64 * MIB)
    assert size.host_bytes > size.memory_bytes


def test_the_group_in_the_guest_keeps_memory_processes_and_a_share_of_the_processor() -> None:
    plan = plan_of(limits=ResourceLimits(memory_bytes=64 * MIB, cpu_cores=0.5, processes=9))
    limits = group_limits(plan, machine_size(plan.limits), period_us=100_000)
    assert limits == {"memory": 64 * MIB, "processes": 9, "cpu_us": 50_000}


def test_the_plan_inside_names_no_path_of_the_host() -> None:
    inside = guest_plan(plan_of())
    assert {mount.source for mount in inside.mounts if mount.kind == "bind"} == {
        "/usr/lib",
        "/etc/ssl/certs",
        "/cardcage/python/lib/python3.11",
        "/cardcage/lib/msgspec",
        "/plugin",
        "/data",
    }
    assert "/srv" not in str(msgspec.to_builtins(inside.mounts))
    assert inside.identity.outside_uid == 1000
    assert "own_uid" in inside.floor


@pytest.mark.parametrize("permission", ["read:/srv/bills/", "write:/srv/out.csv", "subprocess:/usr/bin/git"])
def test_a_grant_that_a_guest_does_not_get_is_refused_by_name(permission: str) -> None:
    with pytest.raises(Refused, match=r'plugin "ocr" 1\.2\.0 was granted') as caught:
        guest_plan(plan_of(permission))
    assert caught.value.code == "vm_grant_impossible"
    assert caught.value.hint


def test_qemu_has_the_walls_of_a_plugin_and_only_its_own_files() -> None:
    plan = plan_of("network:api.example.com:443")
    walls = hypervisor_plan(plan, EMULATED, initrd="/srv/state/machines/initrd.cpio", size=machine_size(plan.limits))
    assert set(plan.namespaces) == set(walls.namespaces)
    assert walls.identity == plan.identity
    assert {"system_call_filter", "network_namespace", "own_uid"} <= set(walls.floor)
    assert walls.network.all_listeners == ()
    targets = {mount.target for mount in walls.mounts}
    assert {"/plugin", "/data", "/cardcage/lib/msgspec"}.isdisjoint(targets)
    assert {"/usr/bin/qemu-system-x86_64", "/boot/kernel", "/boot/initrd"} <= targets
    assert not any(mount.writable for mount in walls.mounts if mount.kind == "bind")


def test_qemu_is_told_to_have_nothing_but_disks_ports_and_a_console() -> None:
    size = machine_size(ResourceLimits(memory_bytes=64 * MIB))
    arguments = qemu_arguments(EMULATED, size, ("/python", "/boot.py"), clock_khz=2_300_000)
    text = " ".join(arguments)
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(arguments)
    assert arguments[arguments.index("-monitor") + 1] == "none"
    assert not any(word in text for word in ("netdev", "-nic", "virtio-net", "vnc", "qmp", "path=", "server="))
    assert "tsc_early_khz=2300000" in text
    assert "read-only=on" in text
    assert arguments[arguments.index("-accel") + 1].startswith("tcg")


def test_machines_are_reserved_for_and_given_back() -> None:
    budget = MemoryBudget(total_bytes=300 * MIB)
    budget.reserve(200 * MIB, plugin="ocr", version="1.2.0")
    with pytest.raises(Unavailable, match="only 100 MiB are left") as caught:
        budget.reserve(101 * MIB, plugin="ocr", version="1.2.0")
    assert caught.value.code == "vm_memory"
    budget.release(200 * MIB)
    budget.reserve(300 * MIB, plugin="ocr", version="1.2.0")


def kernel_in(folder: Path, version: str, *, dep: str, builtin: str = "") -> Kernel:
    modules = folder / version
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text(dep)
    (modules / "modules.builtin").write_text(builtin)
    image = folder / f"vmlinuz-{version}"
    image.write_bytes(b"MZ")
    return Kernel(image=image, modules=modules, version=version)


DEPENDENCIES = """kernel/virtio_ring.ko:
kernel/virtio.ko: kernel/virtio_ring.ko
kernel/virtio_mmio.ko: kernel/virtio.ko kernel/virtio_ring.ko
kernel/virtio_blk.ko: kernel/virtio.ko kernel/virtio_ring.ko
kernel/virtio_console.ko: kernel/virtio.ko kernel/virtio_ring.ko
kernel/erofs.ko: kernel/libcrc32c.ko
kernel/libcrc32c.ko:
"""


def test_modules_come_after_those_that_they_depend_on_and_built_in_ones_not_at_all(tmp_path: Path) -> None:
    kernel = kernel_in(tmp_path, "6.1", dep=DEPENDENCIES, builtin="kernel/fs/ext4/ext4.ko\nkernel/virtio_console.ko\n")
    names = [path.name for path in module_files(kernel)]
    assert names == ["virtio_ring.ko", "virtio.ko", "virtio_mmio.ko", "virtio_blk.ko", "libcrc32c.ko", "erofs.ko"]


def test_a_kernel_without_what_a_guest_needs_is_refused_by_the_modules_name(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"6\.1 has no ext4"):
        module_files(kernel_in(tmp_path, "6.1", dep=DEPENDENCIES))


def test_kernels_made_for_machines_come_first_then_newer_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(hypervisor.KERNEL_VARIABLE, raising=False)
    monkeypatch.setattr(hypervisor, "_BOOT_DIR", tmp_path)
    monkeypatch.setattr(hypervisor, "_MODULE_DIRS", (tmp_path,))
    built_in = "ext4.ko erofs.ko virtio_blk.ko virtio_console.ko"
    for version in ("6.1.9-amd64", "6.1.10-amd64", "5.10.0-cloud-amd64"):
        kernel_in(tmp_path, version, dep="", builtin=built_in)
    assert find_kernel().version == "5.10.0-cloud-amd64"
    (tmp_path / "vmlinuz-5.10.0-cloud-amd64").unlink()
    assert find_kernel().version == "6.1.10-amd64"


def test_a_kernel_that_is_named_is_the_one_and_says_what_is_wrong_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hypervisor, "_MODULE_DIRS", (tmp_path,))
    monkeypatch.setenv(hypervisor.KERNEL_VARIABLE, str(tmp_path / "vmlinuz-7.0"))
    with pytest.raises(LookupError, match=r"vmlinuz-7\.0 cannot be read: No such file"):
        find_kernel()
    (tmp_path / "vmlinuz-7.0").write_bytes(b"MZ")
    with pytest.raises(LookupError, match=r"are not in /lib/modules/7\.0"):
        find_kernel()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="other processors have no such counter")
def test_the_counter_of_the_processor_is_measured() -> None:
    first, second = clock_probe.measure(), clock_probe.measure()
    assert 100_000 < first < 10_000_000
    assert abs(first - second) < first // 100
