"""The wall of a machine that forbids namespaces: decided from the plan that it would have had with them. Pure.

Nothing is shown or hidden: the plugin's folders stand where the host has them, Landlock leaves those and what Python
needs, and the system call filter asks a supervisor wherever a connection is to be made or a process to be started.
`docs/reference/fallback.md` lists what stays open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from cardcage.foundation.errors import Refused
from cardcage.sandbox.network import PROXY_ADDRESS, PROXY_PORT, Listener, NetworkPlan
from cardcage.sandbox.plan import (
    DEVICES,
    FALLBACK_FLOOR,
    PROCESSES,
    TRUST_FILE,
    Identity,
    Inside,
    LandlockRules,
    PlanRequest,
    SandboxPlan,
    SystemCalls,
)

if TYPE_CHECKING:
    from cardcage.sandbox.report import MachineReport

SCOPES_ABI: Final = 6
"""From this version on Landlock keeps signals inside the sandbox."""

NO_NAMESPACES: Final = "no_namespaces"
"""The fact of a machine's report that says why namespaces cannot be had."""

NAMESPACES_AT_HAND: Final = "namespaces_at_hand"
"""The fact that names those which can be made all the same: by root, where user namespaces alone are forbidden."""

_OF_ETC: Final = ("/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/certs", "/etc/pki/tls/certs")


def without_namespaces(plan: SandboxPlan, request: PlanRequest, machine: MachineReport) -> SandboxPlan:
    """`plan` as it can be had without namespaces. Raises `Refused` where the request does not allow that."""
    if not request.allow_fallback:
        raise _refused(request, machine)
    own_uid = machine.uid == 0
    network = _network(plan)
    inside = Inside(
        package_dir=str(request.package_dir), data_dir=str(request.data_dir), temp_dir=str(request.temp_dir)
    )
    return msgspec.structs.replace(
        plan,
        fallback=True,
        inside=inside,
        identity=Identity(outside_uid=request.uid, outside_gid=request.uid) if own_uid else Identity(),
        namespaces=tuple(machine.facts.get(NAMESPACES_AT_HAND, ())),
        mounts=(),
        environment=_environment(plan, network, request, inside),
        network=network,
        working_dir=inside.data_dir,
        python_path=(request.python.stdlib, f"{request.python.stdlib}/lib-dynload", inside.package_dir),
        rlimits=_rlimits(plan, own_uid=own_uid),
        limits=msgspec.structs.replace(plan.limits, processes=plan.limits.processes or PROCESSES),
        landlock=_landlock_rules(plan, request, inside),
        system_calls=SystemCalls(
            profile="fallback" if own_uid else "fallback-shared",
            execute=plan.system_calls.execute,
            # A uid of its own can signal nobody else; a shared one only where Landlock keeps signals inside.
            signals=own_uid or machine.landlock_abi >= SCOPES_ABI,
        ),
        floor=_floor(request, own_uid=own_uid),
    )


def _network(plan: SandboxPlan) -> NetworkPlan:
    """With the proxy, where programs may be started: they look names up by themselves, and there is nowhere to."""
    network = plan.network
    if network.proxy is not None or not (network.endpoints and plan.system_calls.execute):
        return network
    proxy = Listener(address=PROXY_ADDRESS, port=PROXY_PORT, endpoint="")
    return msgspec.structs.replace(network, proxy=proxy)


def _environment(plan: SandboxPlan, network: NetworkPlan, request: PlanRequest, inside: Inside) -> dict[str, str]:
    found = {**plan.environment, **network.environment(), "HOME": inside.data_dir, "TMPDIR": inside.temp_dir}
    if network.proxy is not None and plan.system_calls.execute:
        found |= dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1")
    trust_file = str(request.trust_file)
    return {name: trust_file if value == TRUST_FILE else value for name, value in found.items()}


def _refused(request: PlanRequest, machine: MachineReport) -> Refused:
    why = machine.facts.get(NO_NAMESPACES, "user namespaces cannot be made")
    return Refused(
        f"plugin {request.plugin!r} {request.version} was not started: this machine gives no namespaces ({why}), and "
        "the weaker wall that does without them was not allowed",
        code="fallback_not_allowed",
        hint="allow user namespaces (`cardcage doctor` says how), or let the policy say `fallback: allow`, which "
        "leaves more open",
        plugin=request.plugin,
        version=request.version,
    )


def _floor(request: PlanRequest, *, own_uid: bool) -> tuple[str, ...]:
    if request.floor is not None:
        return request.floor
    return tuple(name for name in FALLBACK_FLOOR if own_uid or name != "own_uid")


def _rlimits(plan: SandboxPlan, *, own_uid: bool) -> dict[str, int]:
    # The kernel counts processes for each uid: of a shared one it would count the host's as well. The supervisor counts
    # in its place.
    return {name: value for name, value in plan.rlimits.items() if own_uid or name != "NPROC"}


def _landlock_rules(plan: SandboxPlan, request: PlanRequest, inside: Inside) -> LandlockRules:
    python = request.python
    reads, writes = _granted(request, "read"), _granted(request, "write")
    programs = tuple(mount.source for mount in plan.mounts if mount.executable and mount.whole_folder is not None)
    devices = tuple(f"/dev/{name}" for name in DEVICES)
    system = tuple(path for path in (*python.system_dirs, *_OF_ETC) if not path.startswith("/etc/") or path in _OF_ETC)
    own = (inside.data_dir, inside.temp_dir)
    trust = () if request.trust_file is None else (str(request.trust_file),)
    # A link of the root (/lib to usr/lib) leads to a folder that is named beside it.
    return LandlockRules(
        read=(*system, python.stdlib, *plan.packages, inside.package_dir, *trust, *own, *devices, *reads, *programs),
        write=(*own, *devices, *writes),
        links=own,
        execute=(*(python.system_dirs if programs else ()), *programs),
    )


def _granted(request: PlanRequest, kind: str) -> tuple[str, ...]:
    paths = {one.value for one in request.permissions if one.kind == kind and one.value.startswith("/")}
    return tuple(sorted(paths))
