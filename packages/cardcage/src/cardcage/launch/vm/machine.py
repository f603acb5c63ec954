"""One virtual machine as data: how large it is, what it boots, what QEMU is told. Pure."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from cardcage.foundation.errors import Refused
from cardcage.launch.runner import LaunchSpec
from cardcage.launch.setup import wall_error
from cardcage.launch.vm.become import FIRST_DESCRIPTOR
from cardcage.launch.vm.guest import TRUST_AT
from cardcage.sandbox.hypervisor import Hypervisor
from cardcage.sandbox.network import NetworkPlan
from cardcage.sandbox.plan import (
    DATA_DIR,
    INSIDE_UID,
    LIBRARY_DIR,
    MIB,
    PACKAGE_DIR,
    STRICT_FLOOR,
    TEMP_DIR,
    TRUST_FILE,
    Identity,
    LandlockRules,
    Mount,
    ResourceLimits,
    SandboxPlan,
    SystemCalls,
)
from cardcage.sandbox.report import EnforcementReport, LayerName

PORTS: Final = ("control", "wire", "stdout", "stderr", "egress")
DISKS: Final = ("system", "package", "data")
DESCRIPTORS: Final = (*PORTS, *DISKS)
"""What QEMU is handed, in this order."""

GUEST_BYTES: Final = 96 * MIB
"""What the guest's kernel, its init and the fork server take, and a little cache."""

PLUGIN_BYTES: Final = 160 * MIB
"""For a plugin that names no limit."""

HYPERVISOR_BYTES: Final = 128 * MIB
"""What QEMU itself takes beside the guest's memory, translated code included."""

TRANSLATED_MIB: Final = 64
DISK_BYTES: Final = 1024 * MIB
"""For a plugin that names no limit of disk. The file is sparse."""

INODES: Final = 65_536
PROCESSES: Final = 64
OPEN_FILES: Final = 128
CPUS_MAX: Final = 4

MADE_AROUND: Final = frozenset(
    {
        LayerName.CGROUP_LIMITS,
        LayerName.DISK_LIMITS,
        LayerName.EGRESS,
        LayerName.ENCRYPTION,
        LayerName.SUPERVISED_CALLS,
        LayerName.VIRTUAL_MACHINE,
        LayerName.HYPERVISOR_WALLS,
    }
)
"""Layers that the walls inside know nothing of: the runner holds its whole report against them."""

USER_FLOOR: Final = tuple(name for name in STRICT_FLOOR if name != LayerName.OWN_UID)
QEMU_DATA_DIRS: Final = ("/usr/share/qemu", "/usr/share/seabios")
_KERNEL_AT, _INITRD_AT = "/boot/kernel", "/boot/initrd"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSize:
    """How large one machine is."""

    memory_bytes: int
    cpus: int
    disk_bytes: int
    inodes: int
    plugin_memory_bytes: int

    @property
    def host_bytes(self) -> int:
        """What the machine may take of the host's memory."""
        return self.memory_bytes + HYPERVISOR_BYTES


def machine_size(limits: ResourceLimits) -> MachineSize:
    """The size that fits `limits`: the plugin has its limit to itself, and the guest's own share comes on top."""
    plugin = limits.memory_bytes or PLUGIN_BYTES
    cores = limits.cpu_cores or 1.0
    return MachineSize(
        memory_bytes=-(-(plugin + GUEST_BYTES) // MIB) * MIB,
        cpus=max(1, min(CPUS_MAX, int(-(-cores // 1)))),
        disk_bytes=limits.disk_bytes or DISK_BYTES,
        inodes=limits.inodes or INODES,
        plugin_memory_bytes=plugin,
    )


def group_limits(plan: SandboxPlan, size: MachineSize, *, period_us: int) -> Mapping[str, int]:
    """The bounds of the plugin's control group in the guest."""
    limits = {"memory": size.plugin_memory_bytes, "processes": plan.limits.processes or PROCESSES}
    if plan.limits.cpu_cores is not None:
        limits["cpu_us"] = max(1000, int(plan.limits.cpu_cores * period_us))
    return limits


def guest_plan(plan: SandboxPlan) -> SandboxPlan:
    """The plan as the guest puts it up: the same walls, with everything at the place where the guest has it.

    Raises `Refused` for a grant that is not carried into a guest.
    """
    check_grants(plan)
    # The guest's control group holds these for all of the plugin's processes, and tells at the end what it held.
    rlimits = {name: value for name, value in plan.rlimits.items() if name not in ("DATA", "NPROC")}
    return msgspec.structs.replace(
        plan,
        rlimits=rlimits,
        identity=Identity(outside_uid=INSIDE_UID, outside_gid=INSIDE_UID),
        fallback=False,
        mounts=tuple(_inside(mount) for mount in plan.mounts if mount.kind != "mask"),
        floor=tuple(dict.fromkeys((*(name for name in plan.floor if name not in MADE_AROUND), "own_uid"))),
    )


def _inside(mount: Mount) -> Mount:
    if mount.kind != "bind":
        return mount
    if mount.target == TRUST_FILE:
        return msgspec.structs.replace(mount, source=TRUST_AT)
    # The guest's own tree is laid out as the plugin sees it.
    return msgspec.structs.replace(mount, source=mount.target, granted=False)


def check_report(spec: LaunchSpec, report: EnforcementReport) -> None:
    """Raise `Refused` where a layer that the plan's floor asks for does not hold around the plugin."""
    below = report.below(spec.plan.floor)
    if below:
        details = (f"{name} ({layer.detail})" for layer in report.layers if (name := str(layer.name)) in below)
        raise wall_error(spec, "floor", 0, f"not enforced: {', '.join(details) or ', '.join(below)}")


def check_grants(plan: SandboxPlan) -> None:
    """Refuse what a guest does not get yet, instead of starting it with less than was granted."""
    for mount in plan.mounts:
        if mount.granted and mount.target != PACKAGE_DIR:
            raise _refused(plan, f"{mount.target} of the host", "files of the host are not shown in virtual machines")


def _refused(plan: SandboxPlan, what: str, why: str) -> Refused:
    return Refused(
        f'plugin "{plan.plugin}" {plan.plugin_version} was granted {what}, which isolation vm does not have: {why}',
        code="vm_grant_impossible",
        hint="use isolation process or container for this plugin, or take the grant back",
        plugin=plan.plugin,
        version=plan.plugin_version,
    )


def hypervisor_plan(plan: SandboxPlan, hypervisor: Hypervisor, *, initrd: str, size: MachineSize) -> SandboxPlan:
    """The walls around QEMU itself: those of a plugin, with QEMU's files in place of a plugin's."""
    qemu = str(hypervisor.qemu)
    own = {PACKAGE_DIR, DATA_DIR, TRUST_FILE}
    system = tuple(
        mount
        for mount in plan.mounts
        if mount.target not in own and not mount.granted and not mount.target.startswith(f"{LIBRARY_DIR}/")
    )
    files = (
        Mount(kind="bind", source=qemu, target=qemu, executable=True, granted=True),
        *(Mount(kind="bind", source=path, target=path, optional=True) for path in QEMU_DATA_DIRS),
        Mount(kind="bind", source=str(hypervisor.kernel.image), target=_KERNEL_AT, granted=True),
        Mount(kind="bind", source=initrd, target=_INITRD_AT, granted=True),
        *([Mount(kind="device", source="/dev/kvm", target="/dev/kvm", writable=True)] if hypervisor.kvm else []),
    )
    loaders = tuple(mount.target for mount in system if mount.kind == "bind" and mount.executable)
    return msgspec.structs.replace(
        plan,
        isolation="process",
        floor=STRICT_FLOOR if plan.identity.outside_uid is not None else USER_FLOOR,
        mounts=(*system, *files),
        working_dir=TEMP_DIR,
        packages=(),
        network=NetworkPlan(),
        rlimits={"CORE": 0, "NOFILE": OPEN_FILES, "FSIZE": size.disk_bytes + MIB, "NPROC": PROCESSES},
        landlock=LandlockRules(
            read=("/usr", "/lib", "/lib64", "/etc", "/proc", "/dev", "/boot", TEMP_DIR),
            write=(TEMP_DIR, "/dev"),
            execute=(*loaders, qemu),
            devices=("/dev/kvm",) if hypervisor.kvm else (),
        ),
        identity=_identity(plan.identity, hypervisor),
        system_calls=SystemCalls(execute=True, profile="hypervisor" if hypervisor.kvm else "plugin"),
        limits=ResourceLimits(memory_bytes=size.host_bytes, cpu_cores=plan.limits.cpu_cores, processes=PROCESSES),
    )


def _identity(own: Identity, hypervisor: Hypervisor) -> Identity:
    """Who QEMU is: the instance's own uid, and where it needs /dev/kvm the group whose members may open that."""
    if own.outside_uid is None or hypervisor.kvm_group is None:
        return own
    return msgspec.structs.replace(own, outside_gid=hypervisor.kvm_group)


def qemu_arguments(
    hypervisor: Hypervisor, size: MachineSize, program: tuple[str, str], *, clock_khz: int | None
) -> list[str]:
    """QEMU's command line. Disks and ports are descriptors that it is handed; it opens no socket and no file else.

    `program` is the interpreter and the script that the guest begins with; `clock_khz` the rate of an emulated clock.
    """
    numbers = {name: FIRST_DESCRIPTOR + place for place, name in enumerate(DESCRIPTORS)}
    return [
        str(hypervisor.qemu),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none", "-parallel", "none"),
        *("-name", "cardcage", "-rtc", "base=utc"),
        *_machine_arguments(hypervisor),
        *("-m", f"{size.memory_bytes // MIB}M", "-smp", str(size.cpus)),
        *("-kernel", _KERNEL_AT, "-initrd", _INITRD_AT),
        *("-append", kernel_arguments(program, clock_khz=clock_khz)),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *_disk_arguments(numbers),
        *_port_arguments(numbers),
    ]


def _machine_arguments(hypervisor: Hypervisor) -> list[str]:
    accelerator = "kvm" if hypervisor.kvm else f"tcg,tb-size={TRANSLATED_MIB}"
    processor = "host" if hypervisor.kvm else "max"
    kind = "virt,gic-version=max" if platform.machine() == "aarch64" else "microvm,pit=on,pic=on,rtc=on"
    return [
        "-machine",
        f"{kind},usb=off" if kind.startswith("virt") else kind,
        "-accel",
        accelerator,
        "-cpu",
        processor,
    ]


def kernel_arguments(program: tuple[str, str], *, clock_khz: int | None) -> str:
    """The kernel's command line: our own program as the first process, and nothing that only real machines have."""
    clock = ["tsc=reliable", f"tsc_early_khz={clock_khz}"] if clock_khz else []
    python, script = program
    console = "ttyAMA0" if platform.machine() == "aarch64" else "ttyS0"
    words = [
        f"console={console}",
        "quiet",
        "panic=-1",
        "reboot=t",
        "random.trust_cpu=on",
        "lsm=landlock",
        "audit=0",
        "8250.nr_uarts=1",
        *clock,
        f"rdinit={python}",
    ]
    return " ".join([*words, "--", "-I", "-S", "-B", "-X", "utf8", script])


def _disk_arguments(numbers: Mapping[str, int]) -> list[str]:
    arguments: list[str] = []
    for place, name in enumerate(DISKS):
        read_only = "off" if name == "data" else "on"
        options = f"driver=file,node-name={name},filename=/dev/fdset/{place},read-only={read_only},locking=off"
        arguments += ["-add-fd", f"fd={numbers[name]},set={place}", "-blockdev", options]
        arguments += ["-device", f"{_device('virtio-blk')},drive={name},serial={name}"]
    return arguments


def _port_arguments(numbers: Mapping[str, int]) -> list[str]:
    arguments = ["-device", _device("virtio-serial")]
    for name in PORTS:
        arguments += ["-chardev", f"socket,id={name},fd={numbers[name]}"]
        arguments += ["-device", f"virtserialport,chardev={name},name={name}"]
    return arguments


def _device(kind: str) -> str:
    return f"{kind}-pci" if platform.machine() == "aarch64" else f"{kind}-device"
