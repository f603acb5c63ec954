"""The walls around one process as data: what is mounted, who it runs as, what it may call. Made by a pure function.

`make_plan` decides; `enter` acts on what it decided and on nothing else. The fork server reads these types too, so this
module imports the standard library and msgspec alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from cardcage.sandbox.network import NetworkPlan, plan_network
from cardcage.sandbox.profile import ProfileName

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cardcage.permissions import Permission
    from cardcage.sandbox.report import MachineReport

MIB: Final = 1024 * 1024

PACKAGE_DIR: Final = "/plugin"
DATA_DIR: Final = "/data"
TEMP_DIR: Final = "/tmp"  # noqa: S108 -- the plugin's own sized tmpfs, not the host's folder
SHM_DIR: Final = "/dev/shm"  # noqa: S108 -- likewise
LIBRARY_DIR: Final = "/cardcage/lib"
PYTHON_DIR: Final = "/cardcage/python"
TRUST_FILE: Final = "/cardcage/trust.pem"

INSIDE_UID: Final = 1000
"""Who the plugin believes it is: an ordinary user, so that software that refuses to run as root runs."""

TEMP_BYTES: Final = 64 * MIB
TEMP_INODES: Final = 16_384
SHM_BYTES: Final = 16 * MIB
OPEN_FILES: Final = 256
"""A plugin holds tens of descriptors; the usual 1024 and more only help one that leaks."""

PROCESSES: Final = 64
OWN_PROCESSES: Final = 1
"""The init beside the plugin's own processes."""

FILE_BYTES: Final = 1024 * MIB

MEMORY_BACKSTOP_BYTES: Final = 4096 * MIB
"""How far RLIMIT_DATA lies above the memory limit where no control group keeps it: it bounds what can be taken between
two looks of the host, and must not be hit first, because it ends nothing and names no limit."""

NAMESPACES: Final = ("user", "pid", "mount", "network", "ipc", "uts", "cgroup", "time")

STRICT_FLOOR: Final = (
    "user_namespace",
    "pid_namespace",
    "mount_namespace",
    "network_namespace",
    "ipc_namespace",
    "uts_namespace",
    "read_only_root",
    "own_uid",
    "capabilities",
    "no_new_privileges",
    "system_call_filter",
    "resource_limits",
    "descriptors",
    "environment",
)
"""The layers without which nothing starts: every kernel that has user namespaces and seccomp has them all.

Landlock, the time and the cgroup namespaces are second walls behind these and are missing on older kernels, so they are
put on where they exist and reported where they do not.
"""

FALLBACK_FLOOR: Final = (
    "own_uid",
    "capabilities",
    "no_new_privileges",
    "landlock_files",
    "system_call_filter",
    "supervised_calls",
    "resource_limits",
    "descriptors",
    "environment",
)
"""The layers without which nothing starts where namespaces cannot be had, and an operator allows to go on without."""

PROGRAM_DIRS: Final = ("/usr/bin/", "/usr/sbin/", "/usr/local/bin/")
"""What a plugin that may start any program sees."""

RESERVED_DIRS: Final = (PACKAGE_DIR, DATA_DIR, "/cardcage", "/proc", "/dev", "/sys")
"""Where a grant may not appear, because the plugin's own folders or the kernel's stand there."""


class Mount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing in the plugin's file tree, in the order in which it is put there.

    `bind` shows `source` of the host; `tmpfs` is memory of at most `size_bytes`; `file` holds `content`; `symlink`
    points to `source`; `device` is a node of the host's /dev; `mask` hides what stands at `target` behind an empty
    folder.
    """

    kind: Literal["bind", "tmpfs", "proc", "device", "symlink", "file", "directory", "mask"]
    target: str
    source: str = ""
    writable: bool = False
    executable: bool = False
    optional: bool = False
    """Left out where the host does not have it."""
    granted: bool = False
    """An operator's grant: made readable to the instance's uid whatever its owner and mode, or the start fails."""
    whole_folder: bool | None = None
    """Whether a grant is of a folder with all beneath it (True) or of one file (False); the source must agree."""
    size_bytes: int = 0
    inodes: int = 0
    content: str = ""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who the process is: to itself (`inside`) and to the kernel (`outside`; None is the host's own user)."""

    inside_uid: int = INSIDE_UID
    inside_gid: int = INSIDE_UID
    outside_uid: int | None = None
    outside_gid: int | None = None


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """The plugin's folders as the plugin sees them."""

    package_dir: str
    data_dir: str
    temp_dir: str


class LandlockRules(msgspec.Struct, frozen=True, kw_only=True):
    """What Landlock leaves: folders and files to read, to write, to execute, and ports to connect to or bind."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    """Folders in which symbolic links may be made: the plugin's own, and none that others look into. A link that leads
    elsewhere, in a folder granted to two plugins or read by the operator, would be followed with another's rights."""
    execute: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    """Device nodes whose own requests (`ioctl`) may be made."""
    connect_ports: tuple[int, ...] = ()
    bind_ports: tuple[int, ...] = ()


class SystemCalls(msgspec.Struct, frozen=True, kw_only=True):
    """The system call filter by name, and whether it lets other programs be started and signals be sent."""

    profile: ProfileName = "plugin"
    execute: bool = False
    signals: bool = True


class ResourceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one instance may use; None leaves the default or, for memory, CPU and disk, no bound.

    The manager's planner leaves none of those open; only who makes plans by hand can.
    """

    memory_bytes: int | None = None
    cpu_cores: float | None = None
    cpu_time_s: int | None = None
    processes: int | None = None
    open_files: int | None = None
    disk_bytes: int | None = None
    """What the files of the data folder may take up together; of each file also its length."""
    inodes: int | None = None
    """Files and folders in the data folder, and as many again in `/tmp`."""
    temp_bytes: int | None = None


class SandboxPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides what one process can see and do."""

    plugin: str
    plugin_version: str
    instance: str
    isolation: str
    inside: Inside
    identity: Identity = Identity()
    hostname: str = "plugin"
    namespaces: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    working_dir: str = "/"
    python_path: tuple[str, ...] = ()
    """`sys.path` inside. The standard library comes first, so that a plugin cannot stand in for it."""
    packages: tuple[str, ...] = ()
    """Folders of the host, each of one Python package, that the plugin may import."""
    rlimits: Mapping[str, int] = msgspec.field(default_factory=dict[str, int])
    landlock: LandlockRules = LandlockRules()
    system_calls: SystemCalls = SystemCalls()
    kept_capabilities: tuple[str, ...] = ()
    limits: ResourceLimits = ResourceLimits()
    network: NetworkPlan = NetworkPlan()
    floor: tuple[str, ...] = ()
    encrypt: bool = False
    """Whether the wire runs through an enciphered link also where no other process can see it."""
    recording: bool = False
    """Whether what the plugin tries is shown to a listener, which the host gets: see `sandbox.recording`."""
    fallback: bool = False
    """Whether this is the weaker wall of a machine that forbids namespaces: see docs/reference/fallback.md."""

    @property
    def walled(self) -> bool:
        """Whether this plan puts up walls at all."""
        return self.isolation != "unconfined"

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data, for `--json` and the audit."""
        return msgspec.to_builtins(self)


class PythonLayout(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of the host's Python and C library that a plugin needs. Found by `python_layout.find_python_layout`."""

    executable: str
    version: str
    stdlib: str
    hidden: tuple[str, ...] = ()
    """Folders below `stdlib` that hold other software (`site-packages`), relative to it."""
    system_dirs: tuple[str, ...] = ()
    """Folders of the host shown at the same place: the C library, time zones, certificates."""
    system_links: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    """Symbolic links of the host's root, such as `/lib` to `usr/lib`."""
    libraries: tuple[str, ...] = ()
    """The interpreter's own shared library, where it has one and it stands in none of `system_dirs`."""


class PlanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan is made from."""

    plugin: str
    version: str
    instance: str
    package_dir: Path
    data_dir: Path
    temp_dir: Path
    python: PythonLayout
    isolation: str = "process"
    library_dirs: tuple[tuple[str, Path], ...] = ()
    """Single Python packages that the plugin may import: name and folder on the host."""
    permissions: tuple[Permission, ...] = ()
    limits: ResourceLimits = ResourceLimits()
    uid: int | None = None
    """The instance's own uid where the host is root; its gid is the same number."""
    floor: tuple[str, ...] | None = None
    allow_fallback: bool = False
    """Whether to go on with the weaker wall where this machine forbids namespaces."""
    injected: tuple[str, ...] = ()
    """The granted endpoints to which the host adds a credential."""
    trust_file: Path | None = None
    """Certificates of the system and of the manager's own authority together, where a credential is added."""


def make_plan(request: PlanRequest, machine: MachineReport) -> SandboxPlan:
    """Decide the walls for `request` on `machine`.

    Raises `Refused` for a grant that cannot be shown inside, and where this machine forbids namespaces and nobody
    allowed the weaker wall.
    """
    plan = _plan(request, machine)
    if str(machine.mode) != "fallback" or not plan.walled:
        return plan
    from cardcage.sandbox.fallback import without_namespaces  # the fork server reads this module, and not that one

    return without_namespaces(plan, request, machine)


def _plan(request: PlanRequest, machine: MachineReport) -> SandboxPlan:
    if request.isolation == "unconfined":
        return _unconfined_plan(request)
    reads, writes = _granted_paths(request.permissions, "read"), _granted_paths(request.permissions, "write")
    programs = _granted_programs(request.permissions)
    _check_grants(request, (*reads, *writes, *programs))
    as_root = str(machine.mode) == "root"
    network = plan_network(_granted_values(request.permissions, "network"), injected=request.injected)
    return SandboxPlan(
        plugin=request.plugin,
        plugin_version=request.version,
        instance=request.instance,
        isolation=request.isolation,
        inside=Inside(package_dir=PACKAGE_DIR, data_dir=DATA_DIR, temp_dir=TEMP_DIR),
        identity=Identity(outside_uid=request.uid if as_root else None, outside_gid=request.uid if as_root else None),
        namespaces=NAMESPACES,
        mounts=(
            *_system_mounts(request.python, network),
            *_own_mounts(request),
            *_grant_mounts(reads, writes, programs),
        ),
        environment=_environment() | network.environment() | _trust_environment(request),
        working_dir=DATA_DIR,
        python_path=python_path(request.python),
        packages=tuple(str(folder) for _, folder in request.library_dirs),
        rlimits=_rlimits(request.limits),
        landlock=_landlock_rules(request.python, reads, writes, programs, network.ports),
        system_calls=SystemCalls(execute=bool(programs)),
        limits=request.limits,
        network=network,
        floor=_floor(request.floor, as_root=as_root),
    )


def _floor(asked: tuple[str, ...] | None, *, as_root: bool) -> tuple[str, ...]:
    if asked is not None:
        return asked
    # An ordinary user has no other uid to give away; root's own is the one that must not be kept.
    return tuple(name for name in STRICT_FLOOR if as_root or name != "own_uid")


def _unconfined_plan(request: PlanRequest) -> SandboxPlan:
    inside = Inside(
        package_dir=str(request.package_dir), data_dir=str(request.data_dir), temp_dir=str(request.temp_dir)
    )
    return SandboxPlan(
        plugin=request.plugin,
        plugin_version=request.version,
        instance=request.instance,
        isolation="unconfined",
        inside=inside,
        environment=_environment() | {"HOME": inside.data_dir, "TMPDIR": inside.temp_dir},
        working_dir=inside.data_dir,
        packages=tuple(str(folder) for _, folder in request.library_dirs),
        limits=request.limits,
    )


def _environment() -> dict[str, str]:
    return {
        "HOME": DATA_DIR,
        "LANG": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": TEMP_DIR,
    }


def _granted_values(permissions: Iterable[Permission], kind: str) -> tuple[str, ...]:
    return tuple(sorted({permission.value for permission in permissions if permission.kind == kind}))


def _granted_paths(permissions: Iterable[Permission], kind: str) -> tuple[str, ...]:
    return tuple(value for value in _granted_values(permissions, kind) if value.startswith("/"))


def _granted_programs(permissions: Iterable[Permission]) -> tuple[str, ...]:
    values = _granted_values(permissions, "subprocess")
    return PROGRAM_DIRS if "*" in values else values


def _check_grants(request: PlanRequest, paths: Iterable[str]) -> None:
    for path in (path.rstrip("/") or "/" for path in paths):
        reserved = next((place for place in RESERVED_DIRS if _is_beneath(path, place)), None)
        if path != "/" and reserved is None and ".." not in PurePosixPath(path).parts:
            continue
        # Imported here: the fork server loads this module and has no use for the errors.
        from cardcage.foundation.errors import Refused

        what = f"plugin {request.plugin!r} {request.version} was granted {path}"
        reason = "a grant names a folder below the root" if reserved is None else f"{reserved} is the sandbox's own"
        raise Refused(
            f"{what}, which cannot be shown inside its walls: {reason}",
            code="grant_impossible",
            hint="grant a narrower path, or one somewhere else",
            plugin=request.plugin,
            version=request.version,
            path=path,
        )


def _is_beneath(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _system_mounts(python: PythonLayout, network: NetworkPlan) -> tuple[Mount, ...]:
    """The C library, Python, /dev, /proc and a handful of files of /etc: the same for every plugin."""
    stdlib = inside_stdlib(python)
    return (
        *(Mount(kind="bind", source=path, target=path, executable=True, optional=True) for path in python.system_dirs),
        *(Mount(kind="symlink", source=to, target=path) for path, to in sorted(python.system_links.items())),
        Mount(kind="bind", source=python.stdlib, target=stdlib, executable=True),
        *(Mount(kind="mask", target=f"{stdlib}/{name}") for name in python.hidden),
        *(Mount(kind="device", source=f"/dev/{n}", target=f"/dev/{n}") for n in DEVICES),
        Mount(kind="symlink", source="/proc/self/fd", target="/dev/fd"),
        Mount(kind="tmpfs", target=SHM_DIR, writable=True, size_bytes=SHM_BYTES, inodes=TEMP_INODES),
        Mount(kind="proc", target="/proc"),
        *(Mount(kind="file", target=path, content=content) for path, content in _etc_files(network).items()),
    )


DEVICES: Final = ("null", "zero", "full", "random", "urandom")

ETC_FILES: Final = {
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/passwd": f"plugin:x:{INSIDE_UID}:{INSIDE_UID}:plugin:{DATA_DIR}:/usr/sbin/nologin\n",
    "/etc/group": f"plugin:x:{INSIDE_UID}:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "/etc/resolv.conf": "",
    "/etc/machine-id": "",
}


def _etc_files(network: NetworkPlan) -> dict[str, str]:
    return ETC_FILES | {"/etc/hosts": ETC_FILES["/etc/hosts"] + network.hosts_text()}


def _trust_environment(request: PlanRequest) -> dict[str, str]:
    """Where TLS libraries of all kinds look for the certificates that they trust."""
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
    return dict.fromkeys(names, TRUST_FILE) if request.trust_file is not None else {}


def _trust_mounts(request: PlanRequest) -> tuple[Mount, ...]:
    if request.trust_file is None:
        return ()
    return (Mount(kind="bind", source=str(request.trust_file), target=TRUST_FILE),)


def _own_mounts(request: PlanRequest) -> tuple[Mount, ...]:
    limits = request.limits
    # What lies there is memory: more room than that would promise what the memory limit takes back by a kill.
    temp_bytes = min(limits.temp_bytes or TEMP_BYTES, limits.memory_bytes or limits.temp_bytes or TEMP_BYTES)
    return (
        *(
            Mount(kind="bind", source=str(folder), target=inside_library(name, folder), executable=True)
            for name, folder in request.library_dirs
        ),
        Mount(kind="bind", source=str(request.package_dir), target=PACKAGE_DIR, executable=True, granted=True),
        Mount(kind="bind", source=str(request.data_dir), target=DATA_DIR, writable=True),
        Mount(kind="tmpfs", target=TEMP_DIR, writable=True, size_bytes=temp_bytes, inodes=limits.inodes or TEMP_INODES),
        *_trust_mounts(request),
    )


def _grant_mounts(reads: tuple[str, ...], writes: tuple[str, ...], programs: tuple[str, ...]) -> tuple[Mount, ...]:
    """Granted paths at the same place, shorter paths first so that a wider grant does not cover a narrower one."""
    wanted = {path.rstrip("/"): _grant_mount(path) for path in reads}
    wanted |= {path.rstrip("/"): _grant_mount(path, executable=True) for path in programs}
    wanted |= {path.rstrip("/"): _grant_mount(path, writable=True) for path in writes}
    return tuple(wanted[path] for path in sorted(wanted, key=lambda path: (path.count("/"), path)))


def _grant_mount(path: str, *, writable: bool = False, executable: bool = False) -> Mount:
    place = path.rstrip("/")
    return Mount(
        kind="bind",
        source=place,
        target=place,
        writable=writable,
        executable=executable,
        granted=True,
        whole_folder=path.endswith("/"),
    )


def inside_stdlib(python: PythonLayout) -> str:
    """Where the standard library stands behind the walls: not at its place on the host, which tells of its owner."""
    return f"{PYTHON_DIR}/lib/python{python.version}"


def inside_library(name: str, source: Path) -> str:
    """Where a package that the plugin may import stands: `msgspec` for a folder, `six.py` for a single file."""
    return f"{LIBRARY_DIR}/{name if source.suffix not in {'.py', '.so'} else source.name}"


def python_path(python: PythonLayout) -> tuple[str, ...]:
    """`sys.path` behind the walls."""
    stdlib = inside_stdlib(python)
    return (stdlib, f"{stdlib}/lib-dynload", LIBRARY_DIR, PACKAGE_DIR)


def _rlimits(limits: ResourceLimits) -> dict[str, int]:
    wanted = {
        "CORE": 0,  # a core file would carry the plugin's secrets into a folder of the host
        "NOFILE": limits.open_files or OPEN_FILES,
        "FSIZE": limits.disk_bytes or FILE_BYTES,
        "MEMLOCK": 64 * 1024,
        "MSGQUEUE": 0,
        "NICE": 0,
        "RTPRIO": 0,
        # Memory that is written to; address space would also count what an allocator merely reserves.
        "DATA": None if limits.memory_bytes is None else limits.memory_bytes + MEMORY_BACKSTOP_BYTES,
        "CPU": limits.cpu_time_s,
        "NPROC": (limits.processes or PROCESSES) + OWN_PROCESSES,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _landlock_rules(
    python: PythonLayout,
    reads: tuple[str, ...],
    writes: tuple[str, ...],
    programs: tuple[str, ...],
    ports: tuple[int, ...],
) -> LandlockRules:
    own = (DATA_DIR, TEMP_DIR, SHM_DIR)
    loaders = python.system_dirs if programs else ()  # a program's own loader is executed too
    return LandlockRules(
        read=(*python.system_dirs, "/cardcage", "/etc", "/proc", "/dev", *own, PACKAGE_DIR, *reads, *programs),
        write=(*own, *(f"/dev/{name}" for name in DEVICES), *writes),
        # Landlock adds rights up on the way to the root, so a folder granted beneath /tmp takes /tmp's right as well.
        links=tuple(folder for folder in own if not any(_is_beneath(path, folder) for path in writes)),
        execute=(*loaders, *programs),
        connect_ports=ports,
        # Clients find out in this way whether there is IPv6. Any port but one of the kernel's choice stays shut.
        bind_ports=(0,) if ports else (),
    )
