"""What this machine has for running plugins in virtual machines: QEMU, a kernel with its modules, maybe KVM.

Found by looking and, for KVM, by doing: a device node that opens may still not work.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

from cardcage.foundation.errors import Refused
from cardcage.sandbox import clock_probe, kvm_probe
from cardcage.sandbox.report import Layer, LayerName, LayerStatus

KERNEL_VARIABLE: Final = "CARDCAGE_VM_KERNEL"
"""Names a kernel image to boot guests with; its modules are those of the version in its name."""

PACKAGES: Final = {
    "x86_64": "qemu-system-x86 linux-image-cloud-amd64 e2fsprogs",
    "aarch64": "qemu-system-arm linux-image-cloud-arm64 e2fsprogs",
}
"""The Debian packages that bring all that is needed."""

_PROGRAMS: Final = {"x86_64": "qemu-system-x86_64", "aarch64": "qemu-system-aarch64"}
_PROGRAM_DIRS: Final = "/usr/bin:/usr/local/bin:/bin:/usr/libexec"
_TOOL_DIRS: Final = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin"
_BOOT_DIR: Final = Path("/boot")
_MODULE_DIRS: Final = (Path("/lib/modules"), Path("/usr/lib/modules"))

NEEDED_MODULES: Final = ("virtio_mmio", "virtio_pci", "virtio_blk", "virtio_console", "erofs", "ext4")
"""What a guest needs of its kernel, built in or as modules; of the two kinds of transport one is enough."""

_PROBE_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel image and the folder of its modules."""

    image: Path
    modules: Path
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypervisor:
    """All that a virtual machine is started with."""

    qemu: Path
    make_file_system: Path
    kernel: Kernel
    kvm: bool
    kvm_detail: str
    """Why there is no KVM, where there is none."""
    kvm_group: int | None = None
    """The group that may open /dev/kvm, where not everybody may."""

    @property
    def accelerator(self) -> str:
        """How the guest's instructions are run: by the processor (`kvm`) or emulated (`tcg`)."""
        return "kvm" if self.kvm else "tcg"


def machine_layer() -> Layer:
    """What machines hold here. Emulation is more code between plugin and host, but not code made to keep anybody in."""
    try:
        found = find_hypervisor()
    except Refused as error:
        return Layer(
            name=LayerName.VIRTUAL_MACHINE,
            status=LayerStatus.UNAVAILABLE,
            detail=error.message,
            hint=error.hint or "",
        )
    if found.kvm:
        detail = f"KVM, with a kernel of its own ({found.kernel.version})"
        return Layer(name=LayerName.VIRTUAL_MACHINE, status=LayerStatus.ENFORCED, detail=detail)
    return Layer(
        name=LayerName.VIRTUAL_MACHINE,
        status=LayerStatus.BEST_EFFORT,
        detail=f"emulated (TCG), which QEMU's makers call no security boundary; no KVM: {found.kvm_detail}; "
        f"kernel {found.kernel.version}",
        hint="use a machine with a working /dev/kvm",
    )


@cache
def find_hypervisor() -> Hypervisor:
    """What this machine has. Raises `Refused` (`vm_unavailable`) naming all that is missing and what brings it."""
    missing: list[str] = []
    machine = platform.machine()
    qemu = shutil.which(_PROGRAMS.get(machine, "qemu-system-none"), path=_PROGRAM_DIRS)
    if qemu is None:
        missing.append(f"{_PROGRAMS.get(machine, 'a QEMU for ' + machine)} is not installed")
    tool = shutil.which("mkfs.ext4", path=_TOOL_DIRS)
    if tool is None:
        missing.append("mkfs.ext4 is not installed")
    try:
        kernel = find_kernel()
    except LookupError as error:
        kernel = None
        missing.append(str(error))
    if qemu is None or tool is None or kernel is None:
        raise Refused(
            f"no virtual machine can be started here: {'; '.join(missing)}",
            code="vm_unavailable",
            hint=f"apt-get install --no-install-recommends {PACKAGES.get(machine, PACKAGES['x86_64'])}",
        )
    why = try_kvm()
    return Hypervisor(
        qemu=Path(qemu),
        make_file_system=Path(tool),
        kernel=kernel,
        kvm=not why,
        kvm_detail=why,
        kvm_group=None if why else _kvm_group(),
    )


def find_kernel() -> Kernel:
    """The kernel that guests boot: the one named by `$CARDCAGE_VM_KERNEL`, or the best in /boot.

    Kernels made for virtual machines (`cloud`, `kvm`) come first, then newer ones. Raises `LookupError` that says why
    there is none.
    """
    named = os.environ.get(KERNEL_VARIABLE)
    images = [Path(named)] if named else sorted(_BOOT_DIR.glob("vmlinuz-*"), key=_fitness, reverse=True)
    if not images:
        raise LookupError("there is no kernel image in /boot")
    reasons: list[str] = []
    for image in images:
        try:
            return _kernel(image)
        except LookupError as error:
            reasons.append(str(error))
    raise LookupError("; ".join(reasons[:3]))


def _fitness(image: Path) -> tuple[bool, list[int]]:
    version = image.name.partition("-")[2]
    numbers = [int(part) for part in version.replace("-", ".").split(".") if part.isdigit()]
    return any(word in version for word in ("cloud", "kvm", "virt")), numbers


def _kernel(image: Path) -> Kernel:
    version = image.name.partition("-")[2]
    try:
        with image.open("rb") as file:
            file.read(1)
    except PermissionError:
        raise LookupError(
            f"the kernel image {image} may be read by root alone (chmod 0644 {image}, or dpkg-statoverride, "
            f"or name a copy in ${KERNEL_VARIABLE})"
        ) from None
    except OSError as error:
        raise LookupError(f"the kernel image {image} cannot be read: {error.strerror}") from None
    modules = next((folder / version for folder in _MODULE_DIRS if (folder / version / "modules.dep").is_file()), None)
    if modules is None:
        raise LookupError(f"the modules of {image} are not in /lib/modules/{version}")
    kernel = Kernel(image=image, modules=modules, version=version)
    module_files(kernel)  # says what is missing here, and not at the first start
    return kernel


def try_kvm() -> str:
    """Run one instruction in a virtual machine, and say why that failed; nothing where it did not.

    On x86 the processor must offer it too: there are kernels whose KVM runs a few instructions without, and guests only
    where they were made for it.
    """
    if platform.machine() == "x86_64" and not _processor_offers_it():
        return "the processor offers no virtualization (neither vmx nor svm)"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "there is no /dev/kvm" if not os.path.exists("/dev/kvm") else "/dev/kvm may not be used by this user"
    done = _run_apart(kvm_probe)
    if done is None:
        return "/dev/kvm opens, but a virtual machine hangs on it"
    return "" if done.returncode == 0 else f"/dev/kvm opens, but does not work: {done.stderr.decode().strip()[-200:]}"


def clock_khz(hypervisor: Hypervisor) -> int | None:
    """How fast the counter counts that an emulated guest takes its time from; None where it has another clock.

    Takes a tenth of a second.
    """
    if hypervisor.kvm or platform.machine() != "x86_64":
        return None
    done = _run_apart(clock_probe)
    if done is None or done.returncode != 0:
        return None  # the guest then finds out by itself, which goes wrong only where the machine is busy
    return int(done.stdout)


def _run_apart(script: ModuleType) -> subprocess.CompletedProcess[bytes] | None:
    """Run one of our scripts in a process of its own, which may hang or die as it likes; None where it hung."""
    command = [sys.executable, "-I", "-S", "-B", str(script.__file__)]
    try:
        return subprocess.run(command, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False, env={})  # noqa: S603
    except subprocess.TimeoutExpired:
        return None


def _kvm_group() -> int | None:
    found = os.stat("/dev/kvm")
    return None if found.st_mode & 0o006 == 0o006 else found.st_gid


def _processor_offers_it() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    return "vmx" in flags or "svm" in flags


def module_files(kernel: Kernel, names: tuple[str, ...] = NEEDED_MODULES) -> tuple[Path, ...]:
    """The files of the modules that are not built in, each after those that it depends on.

    Raises `LookupError` with the name of one that the kernel has neither way.
    """
    dependencies = _dependencies(kernel)
    built_in = _built_in(kernel)
    wanted: list[str] = []
    for name in names:
        if name in built_in:
            continue
        if name not in dependencies:
            if name in ("virtio_mmio", "virtio_pci"):
                continue  # one of the two does
            raise LookupError(f"the kernel {kernel.version} has no {name}, which a guest needs")
        path, needs = dependencies[name]
        # modules.dep lists the nearest first.
        wanted.extend(file for file in (*reversed(needs), path) if file not in wanted)
    return tuple(kernel.modules / file for file in wanted)


def _dependencies(kernel: Kernel) -> dict[str, tuple[str, tuple[str, ...]]]:
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for line in (kernel.modules / "modules.dep").read_text(encoding="utf-8").splitlines():
        path, _, needs = line.partition(":")
        found[_module_name(path)] = (path, tuple(needs.split()))
    return found


def _built_in(kernel: Kernel) -> frozenset[str]:
    try:
        text = (kernel.modules / "modules.builtin").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    return frozenset(map(_module_name, text.split()))


def _module_name(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0].replace("-", "_")
