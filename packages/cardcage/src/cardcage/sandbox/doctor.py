"""What this machine can really enforce, found by doing: each layer is tried in a child that does it and looks.

Nothing is concluded from version numbers. A child puts a whole plan's walls around itself, the way an instance does,
and then tries what they should refuse. Where that start fails, the namespaces are tried one at a time, to name the
culprit.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from cardcage.permissions import Permission, PermissionKind
from cardcage.sandbox import landlock, seccomp, syscalls
from cardcage.sandbox.control_groups import KEPT_MAX, ControlGroup
from cardcage.sandbox.disk_use import disk_layer
from cardcage.sandbox.enter import CLONE_FLAGS, LayerRow, SetupError, Surroundings, Walls, die_with_parent
from cardcage.sandbox.fallback_trial import try_confinement
from cardcage.sandbox.group_search import TRIAL, find_groups
from cardcage.sandbox.hypervisor import machine_layer
from cardcage.sandbox.mode import detect_mode, fallback_facts, why_no_fallback, why_no_namespaces
from cardcage.sandbox.mounts import try_id_mapped_mount
from cardcage.sandbox.plan import PlanRequest, make_plan
from cardcage.sandbox.python_layout import find_python_layout
from cardcage.sandbox.report import Layer, LayerName, LayerStatus, MachineReport, Mode

_PROBE_TIMEOUT_S: Final = 10.0
_PROBE_UID: Final = 65_533
"""Any unprivileged number will do: the child owns nothing and ends at once."""

_PROBED_PORT: Final = 80
_PROBED_ENDPOINTS: Final = (f"127.0.0.1:{_PROBED_PORT}", "name.test:443", "[2001:db8::1]:443")
"""One of each kind: an address of the loopback interface and a low port, a name, and an address of IPv6."""

_HINTS: Final = {
    LayerName.USER_NAMESPACE: "allow unprivileged user namespaces: sysctl user.max_user_namespaces=10000, "
    "kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0, as your system has them; "
    "in a container, allow unshare in its seccomp profile",
    LayerName.LANDLOCK_FILES: "boot with landlock in the lsm= list (Linux 5.13 or newer)",
    LayerName.LANDLOCK_NETWORK: "Linux 6.7 or newer",
    LayerName.LANDLOCK_SCOPES: "Linux 6.12 or newer",
    LayerName.TIME_NAMESPACE: "Linux 5.6 or newer",
    LayerName.PRIVATE_PROC: "in a container, run it with its /proc unmasked",
    LayerName.EGRESS: "grants of IPv6 addresses need IPv6: sysctl net.ipv6.conf.all.disable_ipv6=0",
    LayerName.CGROUP_LIMITS: "delegate a control group: systemd-run --user --scope -p Delegate=yes ...",
}

_NOT_TRIED: Final = frozenset(
    {LayerName.CGROUP_LIMITS, LayerName.DISK_LIMITS, LayerName.EGRESS, LayerName.SUPERVISED_CALLS}
)
"""Layers that are no part of the walls as a whole; the last one stands where the others cannot be had."""

_NO_SUPERVISION: Final = Layer(
    name=LayerName.SUPERVISED_CALLS, status=LayerStatus.OFF, detail="for machines that forbid namespaces"
)

_NEEDS_LINUX: Final = "walls are made of Linux's namespaces, seccomp and Landlock"


def examine() -> MachineReport:
    """Try every layer. Takes some tens of milliseconds and leaves nothing behind."""
    mode = detect_mode()
    facts: dict[str, Any] = {"python": platform.python_version()}
    if mode is Mode.NONE:
        return _report(mode, _all_unavailable(), facts)
    if mode is Mode.FALLBACK:
        facts |= fallback_facts()
    rows = _try_fallback(facts) if mode is Mode.FALLBACK else _try_walls(mode)
    layers = {name: _layer(name, status, detail) for name, status, detail in rows}
    for layer in (_cgroup_layer(facts), disk_layer(), _encryption_layer(), *_machine_layers(mode)):
        layers[str(layer.name)] = layer
    if mode is not Mode.FALLBACK:
        layers[LayerName.SUPERVISED_CALLS] = _NO_SUPERVISION
    facts["id_mapped_mounts"] = _id_mapped_mounts(mode)
    facts["landlock_abi"] = landlock.abi()
    return _report(mode, [layers[name] for name in LayerName if name in layers], facts)


def _report(mode: Mode, layers: Iterable[Layer], facts: dict[str, Any]) -> MachineReport:
    return MachineReport(
        system=platform.system(),
        kernel=platform.release(),
        architecture=platform.machine(),
        mode=mode,
        uid=os.geteuid(),
        gid=os.getegid(),
        layers=tuple(layers),
        landlock_abi=landlock.abi() if sys.platform == "linux" and syscalls.supported() else 0,
        facts=facts,
    )


def _all_unavailable() -> list[Layer]:
    if sys.platform != "linux":
        why, hint = _NEEDS_LINUX, "run on Linux, or ask for isolation: unconfined, which walls nothing"
    elif not syscalls.supported():
        why, hint = f"system call numbers of {platform.machine()} are not known here", "x86_64 and aarch64 are"
    else:
        why = f"no namespaces ({why_no_namespaces()}), nor the wall without them ({why_no_fallback()})"
        hint = "run as an ordinary user, or give the container CAP_SYS_ADMIN"
    return [Layer(name=name, status=LayerStatus.UNAVAILABLE, detail=why, hint=hint) for name in LayerName]


def _layer(name: str, status: str, detail: str) -> Layer:
    known = LayerStatus(status)
    hint = "" if known is LayerStatus.ENFORCED else _HINTS.get(LayerName(name), "")
    return Layer(name=name, status=known, detail=detail, hint=hint)


def _machine_layers(mode: Mode) -> tuple[Layer, Layer]:
    """What a virtual machine would be made of here."""
    around = Layer(
        name=LayerName.HYPERVISOR_WALLS, status=LayerStatus.OFF, detail="around QEMU, where a machine is started"
    )
    if mode is not Mode.FALLBACK:
        return machine_layer(), around
    detail = "QEMU is not started without namespaces around it, and they cannot be had"
    return Layer(name=LayerName.VIRTUAL_MACHINE, status=LayerStatus.UNAVAILABLE, detail=detail), around


def _encryption_layer() -> Layer:
    """Asked for in a container; on this machine's own sockets only where an operator wants it."""
    detail = "a plugin's socket is open to its own process and the host's alone"
    return Layer(name=LayerName.ENCRYPTION, status=LayerStatus.OFF, detail=detail)


def _cgroup_layer(facts: dict[str, Any]) -> Layer:
    """Whether groups with limits can be made here, and a process of ours is then really in one."""
    found = find_groups()
    facts["cgroups"] = found.tried
    if found.driver is None:
        detail = f"no control group can be made ({found.why_not}): the host looks after memory and CPU itself"
        return _layer(LayerName.CGROUP_LIMITS, LayerStatus.BEST_EFFORT, detail)
    try:
        group = found.driver.make("doctor", TRIAL)
        counted = _in_child(lambda: _enter_group(group))
    finally:
        found.driver.close()
    kept = (
        f"control groups {found.driver.version}: {', '.join(name for name in KEPT_MAX if name in found.driver.keeps)}"
    )
    if counted != "":
        return _layer(LayerName.CGROUP_LIMITS, LayerStatus.UNAVAILABLE, f"{kept}; {counted}")
    if found.why_not:
        return _layer(LayerName.CGROUP_LIMITS, LayerStatus.BEST_EFFORT, f"{kept}; not {found.why_not}")
    return _layer(LayerName.CGROUP_LIMITS, LayerStatus.ENFORCED, kept)


def _enter_group(group: ControlGroup) -> str:
    for entry in group.entries:
        os.write(entry, b"0")
    seen = group.usage().processes
    return "" if seen in (1, None) else f"a process that entered is not in it ({seen} are)"


def _id_mapped_mounts(mode: Mode) -> str:
    if mode is not Mode.ROOT:
        return "not needed: plugins run as this user"
    with tempfile.TemporaryDirectory(prefix="cardcage-") as folder:
        told = _in_child(lambda: try_id_mapped_mount(folder, _PROBE_UID))
    return "enforced" if told == "" else f"unavailable: {told}"


def _try_walls(mode: Mode, *, alone: bool = False) -> list[LayerRow]:
    """The layers of a complete start, each corrected by what the walled child then really managed to do."""
    with tempfile.TemporaryDirectory(prefix="cardcage-") as folder:
        for name in ("package", "data", "temp"):
            Path(folder, name).mkdir()
        if mode is Mode.ROOT:
            os.chown(Path(folder, "data"), _PROBE_UID, _PROBE_UID)
        host_pids = os.stat("/proc/self/ns/pid").st_ino
        told: Any = _in_child(lambda: _walled(mode, Path(folder), host_pids), own_pid_namespace=mode)
    if not isinstance(told, list) and not alone:
        # The program around may have threads, and a child forked while one of them holds a lock waits for it for ever:
        # what failed is tried again by a process that has none, and only that counts.
        told = _in_new_interpreter()
    if isinstance(told, list):
        return [(name, status, detail) for name, status, detail in cast("list[LayerRow]", told)]
    return _explain(mode, str(told))


def _in_new_interpreter() -> Any:
    """What `_try_walls` finds in an interpreter started for it; where that fails, the failure as text."""
    import subprocess

    program = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from cardcage.sandbox import doctor; "
    program += "print(json.dumps(doctor._try_walls(doctor.detect_mode(), alone=True)))"
    try:
        done = subprocess.run(  # noqa: S603 -- our own interpreter and text
            [sys.executable, "-I", "-c", program, json.dumps([each or os.getcwd() for each in sys.path])],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=6 * _PROBE_TIMEOUT_S,
            check=True,
        )
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f"the interpreter started for it failed: {error}"


def _try_fallback(facts: dict[str, Any]) -> list[LayerRow]:
    """The layers of the wall without namespaces, tried in the same way."""
    own_uid = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="cardcage-") as folder:
        os.chmod(folder, 0o711)  # noqa: S103 -- the probe's uid must get to the folders in it
        for name in ("package", "data", "temp"):
            Path(folder, name).mkdir()
        if own_uid:
            os.chown(Path(folder, "data"), _PROBE_UID, _PROBE_UID)
        machine = _report(Mode.FALLBACK, (), facts)
        plan = make_plan(_probe_request(Path(folder), uid=_PROBE_UID if own_uid else None), machine)
        told: Any = _in_child(lambda: try_confinement(plan))
    if not isinstance(told, list):
        others = [name for name in LayerName if name not in _NOT_TRIED - {LayerName.SUPERVISED_CALLS}]
        rows = [(str(name), "unavailable", "see supervised_calls") for name in others]
        why = {"user_namespace": why_no_namespaces(), "supervised_calls": f"the wall could not be put up: {told}"}
        return [(name, status, why.get(name, detail)) for name, status, detail in rows]
    rows = [(name, status, detail) for name, status, detail in cast("list[LayerRow]", told)]
    named = [("user_namespace", "unavailable", why_no_namespaces()), *rows[1:]]
    return [*named, ("descriptors", *_close_range_works()), ("environment", "enforced", "the fork server has none")]


def _probe_request(folder: Path, *, uid: int | None) -> PlanRequest:
    return PlanRequest(
        plugin="doctor",
        version="0",
        instance="doctor",
        package_dir=folder / "package",
        data_dir=folder / "data",
        temp_dir=folder / "temp",
        python=find_python_layout(),
        uid=uid,
        floor=(),
        allow_fallback=True,
        permissions=tuple(Permission(PermissionKind.NETWORK, endpoint) for endpoint in _PROBED_ENDPOINTS),
    )


def _walled(mode: Mode, folder: Path, host_pids: int) -> list[LayerRow]:
    machine = _report(mode, (), {})
    request = _probe_request(folder, uid=_PROBE_UID if mode is Mode.ROOT else None)
    surroundings = Surroundings(as_root=mode is Mode.ROOT)
    surroundings.namespaces["pid"] = host_pids  # this child is in a new one already, and compares with the host's
    layers: list[LayerRow] = [
        ("descriptors", *_close_range_works()),
        ("environment", "enforced", "the fork server is started with none"),
    ]
    walls = Walls(make_plan(request, machine), surroundings, layers=layers)
    walls.put_up()
    return [_confirm_egress(row) if row[0] == "egress" else _confirm(row) for row in walls.layers]


def _confirm_egress(row: LayerRow) -> LayerRow:
    """Whether a granted endpoint takes a connection, and one that was not granted takes none."""
    name, status, detail = row
    if status == "unavailable":
        return row
    if not _works(lambda: _connect("127.0.0.1", _PROBED_PORT)):
        return name, "unavailable", f"{detail}; a connection to a granted endpoint is not taken"
    if _works(lambda: _connect("127.0.0.1", _PROBED_PORT + 1)):
        return name, "unavailable", f"{detail}; a connection to an endpoint that was not granted is taken"
    return name, status, f"{detail}; granted endpoints can be reached, and no others"


def _connect(host: str, port: int) -> None:
    import socket

    # An address as it is: to look one up, Python would import from a tree that this child has left.
    with socket.socket() as sock:
        sock.connect((host, port))


def _close_range_works() -> tuple[str, str]:
    descriptor = os.open("/dev/null", os.O_RDONLY)
    syscalls.call("close_range", descriptor, descriptor, 0)
    try:
        os.close(descriptor)
    except OSError:
        return "enforced", "closed before the walls go up"
    return "unavailable", "close_range closes nothing"


def _confirm(row: LayerRow) -> LayerRow:
    """The row as it is, or corrected where what the layer forbids still works."""
    name, status, _ = row
    still_works = _FORBIDDEN.get(name)
    if status == "enforced" and still_works is not None and _works(still_works):
        return name, "unavailable", "it went on, and what it forbids still works"
    return row


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _read_host_file() -> None:
    # A file that the mount namespace shows and that Landlock has no rule for.
    os.listdir("/")


_FORBIDDEN: Final[dict[str, Callable[[], object]]] = {
    "mount_namespace": lambda: os.stat("/sys"),
    "network_namespace": lambda: _connect_outside(),
    "read_only_root": lambda: Path("/probe").write_text(""),
    "private_proc": lambda: Path("/proc/sysrq-trigger").write_text(""),
    "own_uid": lambda: os.setuid(0),
    "capabilities": lambda: os.chroot("/tmp"),  # noqa: S108 -- the sandbox's own
    "landlock_files": _read_host_file,
    "system_call_filter": lambda: syscalls.call("unshare", CLONE_FLAGS["user"]),
}


def _connect_outside() -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # documentation's own address: no packet leaves, only a route is looked for


def _explain(mode: Mode, failure: str) -> list[LayerRow]:
    """Why the walls as a whole failed, namespace by namespace."""
    rows: list[LayerRow] = []
    base = 0 if mode is Mode.ROOT else CLONE_FLAGS["user"]
    for name, flag in CLONE_FLAGS.items():
        told = _in_child(lambda flag=flag: _unshare(base | flag))
        rows.append((f"{name}_namespace", "enforced" if told == "" else "unavailable", str(told)))
    told = _in_child(lambda: _install_filter())
    rows.append(("system_call_filter", "enforced" if told == "" else "unavailable", str(told)))
    abi = landlock.abi()
    rows.append(("landlock_files", "best-effort" if abi else "unavailable", f"ABI {abi}" if abi else "off"))
    done = {name for name, _, _ in rows}
    others = [name for name in LayerName if name not in done | (_NOT_TRIED - {LayerName.EGRESS})]
    rows += [(name, "unavailable", f"the walls as a whole could not be put up: {failure}") for name in others]
    return rows


def _unshare(flags: int) -> str:
    syscalls.call("unshare", flags)
    return ""


def _install_filter() -> str:
    from cardcage.sandbox import capabilities

    capabilities.no_new_privileges()
    seccomp.install(seccomp.assemble(execute=False))
    return "the filter was taken and refuses nothing" if _works(lambda: os.chroot("/")) else ""


def _in_child(act: Callable[[], Any], *, own_pid_namespace: Mode | None = None) -> Any:
    """What `act` returns in a forked child, through JSON; where it failed, the failure as text."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _tell(write_end, act, own_pid_namespace)
    os.close(write_end)
    try:
        return json.loads(_read_all(read_end, child) or '"the child ended without a word"')
    finally:
        os.close(read_end)
        os.waitpid(child, 0)


def _tell(answer: int, act: Callable[[], Any], own_pid_namespace: Mode | None) -> NoReturn:
    try:
        die_with_parent()
        if own_pid_namespace is not None:
            _become_first_process(own_pid_namespace)
        told = act()
    except SetupError as error:
        told = str(error)
    except OSError as error:
        told = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    except BaseException as error:
        told = f"{type(error).__name__}: {error}"
    try:
        os.write(answer, json.dumps(told).encode())
    finally:
        os._exit(0)


def _become_first_process(mode: Mode) -> None:
    """Go on as the first process of a new pid namespace; the process from before waits for the end of it."""
    uid, gid = os.getuid(), os.getgid()
    syscalls.call("unshare", CLONE_FLAGS["pid"] | (0 if mode is Mode.ROOT else CLONE_FLAGS["user"]))
    if mode is not Mode.ROOT:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os._exit(0)
    die_with_parent()


def _read_all(descriptor: int, child: int) -> bytes:
    """All that the child writes, or nothing where it takes too long; then it is killed."""
    import select

    deadline = time.monotonic() + _PROBE_TIMEOUT_S
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left)[0]:
            break
        part = os.read(descriptor, 65536)
        if not part:
            return b"".join(parts)
        parts.append(part)
    os.kill(child, signal.SIGKILL)
    return b""
