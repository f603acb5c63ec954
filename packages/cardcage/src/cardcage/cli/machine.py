"""`cardcage doctor|plan|version|completion`: what this machine enforces, and what would be built on it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Literal

import typer

from cardcage.cli.exits import ExitCode
from cardcage.cli.loop import run
from cardcage.cli.options import Config, Grant, Isolation, Json, PluginName, Policy, StateDir, read_config
from cardcage.cli.text import console, facts, print_json, safe, table
from cardcage.foundation.sizes import size_text

if TYPE_CHECKING:
    from cardcage.launch.container_trial import RuntimeTrial
    from cardcage.sandbox.plan import SandboxPlan
    from cardcage.sandbox.report import MachineReport

_STYLES: Final = {"enforced": "green", "best-effort": "yellow", "unavailable": "red", "off": "dim"}


_WALLS: Final = {
    "container": "a container: an OCI runtime makes what follows, and it is looked at from inside",
    "vm": "a virtual machine: what follows stands inside it, and the package and the data are disks",
}


def doctor(as_json: Json = False) -> None:
    """Try every layer of the walls on this machine, and say which hold. Status 1 where the strict floor is not met."""
    from cardcage.launch.container_trial import try_runtimes
    from cardcage.sandbox.doctor import examine
    from cardcage.sandbox.plan import FALLBACK_FLOOR, STRICT_FLOOR
    from cardcage.sandbox.report import Mode

    machine = examine()
    containers = run(try_runtimes(machine)) if machine.mode in (Mode.ROOT, Mode.USER) else []
    below = machine.below(STRICT_FLOOR)
    fallback = machine.mode is Mode.FALLBACK and not machine.below(FALLBACK_FLOOR)
    if as_json:
        print_json(
            {
                **machine.to_json(),
                "floor": list(STRICT_FLOOR),
                "below": [layer.name for layer in below],
                "strict": not below,
                "fallback": fallback,
                "containers": [trial.to_json() for trial in containers],
            }
        )
    else:
        _print_machine(machine, frozenset(STRICT_FLOOR), [layer.name for layer in below], fallback=fallback)
        _print_containers(containers)
    raise typer.Exit(ExitCode.FAILED if below else ExitCode.OK)


def _print_machine(machine: MachineReport, floor: frozenset[str], below: list[str], *, fallback: bool) -> None:
    from rich.text import Text

    from cardcage.sandbox.report import LayerStatus

    out = console()
    out.print(f"{machine.system} {machine.kernel} {machine.architecture}, walls as {machine.mode.value}")
    shown = table("layer", "status", "floor", "what was seen", "what to do")
    excused = {name for name in floor if machine.status(name) is not LayerStatus.ENFORCED} - set(below)
    for layer in machine.layers:
        status = Text(layer.status.value, style=_STYLES[layer.status.value])
        place = "" if layer.name not in floor else "floor" if layer.name not in excused else "as root"
        shown.add_row(layer.name, status, place, safe(layer.detail), safe(layer.hint))
    out.print(shown)
    if below:
        out.print(f"\nBelow the strict floor: {', '.join(below)}. Plugins are refused here.", style="red")
        if fallback:
            out.print(
                "The weaker wall that does without namespaces is enforced: a policy with `fallback: allow`, as the "
                "level permissive has it, lets plugins start behind it. What it leaves open stands in "
                "docs/reference/fallback.md.",
                style="yellow",
            )
    else:
        but = f", but for {', '.join(sorted(excused))}: only a host that is root has one to give" if excused else ""
        out.print(f"\nThe whole strict floor is enforced{but}.", style="green")


def _print_containers(trials: list[RuntimeTrial]) -> None:
    out = console()
    if not trials:
        out.print("\nIsolation container: no OCI runtime was found to be tried; apt-get install crun brings one.")
        return
    out.print("\nIsolation container, by")
    shown = table("runtime", "works", "a start took", "what was seen")
    for trial in trials:
        took = f"{trial.start_s * 1000:.0f} ms" if trial.works else ""
        shown.add_row(safe(trial.path), "yes" if trial.works else "no", took, safe(trial.detail))
    out.print(shown)


def plan(
    name: PluginName,
    config: Config = None,
    grant: Grant = None,
    isolation: Isolation = "process",
    policy: Policy = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show the walls that a plugin would get, without starting it."""
    from cardcage.cli.host import Target

    target = Target.parse(name)
    settings: dict[str, Any] = {
        "config": read_config(config),
        "grants": grant,
        "isolation": isolation,
        "policy": policy,
    }
    walls = run(_plan(target, state_dir, settings))
    if as_json:
        print_json(walls.to_json())
    else:
        _print_plan(walls)


async def _plan(target: Any, state_dir: StateDir, settings: dict[str, Any]) -> SandboxPlan:
    from cardcage.cli.host import installed, open_host

    async with open_host(state_dir, target=target, **settings) as host:
        installed(host.store, target)
        plan = host.manager.plan(target.instance)
    if plan.isolation == "vm":
        from cardcage.launch.vm.machine import check_grants

        check_grants(plan)  # what a start would refuse is not shown as if it were to be had
    return plan


def _print_plan(plan: SandboxPlan) -> None:
    out = console()
    out.print(f"{plan.instance} {safe(plan.plugin_version)}, isolation {plan.isolation}", style="bold")
    uid = plan.identity.outside_uid
    outside = f"uid {uid}" if uid is not None else _outside()
    out.print(
        facts(
            {
                "runs as": _runs_as(plan, outside),
                "wall": "the weaker one, without namespaces: docs/reference/fallback.md"
                if plan.fallback
                else _WALLS.get(plan.isolation),
                "namespaces": " ".join(plan.namespaces) or "none",
                "network": " ".join(plan.network.endpoints) or ("none" if plan.walled else "all of the host's"),
                "by the proxy": " ".join(plan.network.proxied) or None,
                "unreachable": " ".join(plan.network.unreachable) or None,
                "programs": "may be started" if plan.system_calls.execute or not plan.walled else "may not be started",
                "environment": " ".join(f"{key}={value}" for key, value in plan.environment.items()),
                "limits": _limits(plan),
                "each process": " ".join(f"{key}={value}" for key, value in plan.rlimits.items()) or None,
                "refused unless": " ".join(plan.floor) or None,
            }
        )
    )
    if plan.network.listeners:
        _print_listeners(plan)
    if plan.fallback:
        _print_opened(plan)
    if not plan.mounts:
        return
    from cardcage.sandbox.plan import PACKAGE_DIR

    out.print("\nsees these files, and no others")
    shown = table("path", "what", "may")
    for mount in plan.mounts:
        may = "read, write" if mount.writable else "read, execute" if mount.executable else "read"
        what = mount.source if mount.kind == "bind" else f"{mount.kind} {mount.source}".strip()
        # The package is mounted as what is granted is, but it is the plugin's own.
        granted = " (granted)" if mount.granted and mount.target != PACKAGE_DIR else ""
        shown.add_row(safe(mount.target), safe(what), may + granted)
    out.print(shown)


def _limits(plan: SandboxPlan) -> str:
    """What the instance as a whole may use; the row below has what the kernel holds each of its processes to."""
    limits = plan.limits
    bytes_of = {"memory": limits.memory_bytes, "disk": limits.disk_bytes}
    numbers_of = {"cpu": limits.cpu_cores, "processes": limits.processes, "files": limits.inodes}
    texts = {name: size_text(value) for name, value in bytes_of.items() if value is not None}
    texts |= {name: f"{value:g}" for name, value in numbers_of.items() if value is not None}
    return ", ".join(f"{name} {text}" for name, text in texts.items()) or "none"


def _runs_as(plan: SandboxPlan, outside: str) -> str:
    if not plan.walled:
        return "this user"
    return outside if plan.fallback else f"uid {plan.identity.inside_uid} inside; outside {outside}"


def _print_opened(plan: SandboxPlan) -> None:
    """What Landlock leaves, where there is no tree of the plugin's own."""
    console().print("\nopens these files, and no others")
    shown = table("path", "may")
    rules = plan.landlock
    for path in dict.fromkeys((*rules.read, *rules.write, *rules.execute)):
        rights = {"read": rules.read, "write": rules.write, "execute": rules.execute}
        shown.add_row(safe(path), ", ".join(name for name, paths in rights.items() if path in paths))
    console().print(shown)


def _print_listeners(plan: SandboxPlan) -> None:
    console().print("\nconnects to these, and no others")
    names = {address: name for name, address in plan.network.hosts.items()}
    shown = table("inside", "name", "leads to")
    for listener in plan.network.listeners:
        what = f"{listener.endpoint} over TLS, with a credential" if listener.upgraded else listener.endpoint
        shown.add_row(safe(str(listener)), safe(names.get(listener.address, "")), safe(what))
    console().print(shown)


def _outside() -> str:
    """Who an instance without a user id is: under root it is given one of its own when it is first started."""
    return "the host's own user" if os.geteuid() else "a uid of its own, from its first start on"


def version(as_json: Json = False) -> None:
    """Print the versions of Cardcage and of what it stands on."""
    import platform
    from importlib.metadata import entry_points

    from cardcage import __version__

    packs = {
        entry.name: entry.dist.version if entry.dist is not None else "unknown"
        for entry in entry_points(group="cardcage.packs")
    }
    if as_json:
        print_json({"cardcage": __version__, "python": platform.python_version(), "packs": packs})
        return
    console().print(f"cardcage {__version__} (Python {platform.python_version()})")
    for name, pack_version in sorted(packs.items()):
        console().print(f"pack {name} {pack_version}")


def completion(shell: Literal["bash", "zsh", "fish"] = typer.Argument(..., help="Your shell.")) -> None:
    """Say how to switch on completion of commands and options in a shell."""
    lines = {
        "bash": ("~/.bashrc", 'eval "$(_CARDCAGE_COMPLETE=source_bash cardcage)"'),
        "zsh": ("~/.zshrc", 'eval "$(_CARDCAGE_COMPLETE=source_zsh cardcage)"'),
        "fish": ("~/.config/fish/config.fish", "_CARDCAGE_COMPLETE=source_fish cardcage | source"),
    }
    where, line = lines[shell]
    print(f"# Put this line into {where}, or let `cardcage --install-completion` do it.\n{line}")
