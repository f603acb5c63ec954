"""`cardcage plugin validate|load|remove` and `cardcage plugins register`: what is installed, and what is not."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cardcage.cli.loop import run
from cardcage.cli.options import Config, Grant, Isolation, Json, PluginName, Policy, StateDir, Timeout, read_config
from cardcage.cli.plugins import print_permissions
from cardcage.cli.text import console, facts, print_json, safe
from cardcage.foundation.errors import CardcageError

if TYPE_CHECKING:
    from cardcage.cli.host import Host, Target
    from cardcage.registry import InstalledPlugin
    from cardcage.trust import VerifiedRelease

PackagePath = Annotated[Path, typer.Argument(metavar="PATH", help="The folder of a plugin, with its plugin.yaml.")]


def validate(path: PackagePath, as_json: Json = False) -> None:
    """Check a package without running any of it: manifest, entry point, config schema, host range, digest."""
    from cardcage.trust import verify

    release = verify(path)
    if as_json:
        print_json(_release_json(release))
        return
    manifest = release.manifest
    out = console()
    out.print(f"{manifest.name} {manifest.version} is valid", style="bold green")
    out.print(
        facts(
            {
                "description": manifest.description or None,
                "type": manifest.type,
                "runtime": manifest.runtime.value,
                "entry point": manifest.entrypoint.raw,
                "provides": " ".join(map(str, manifest.provides)) or None,
                "config keys": ", ".join((manifest.config_schema or {}).get("properties", {})) or None,
                "isolation": manifest.isolation,
                "files": f"{release.digest.files} ({release.digest.total_bytes} bytes)",
                "digest": f"sha256:{release.digest.sha256}",
            }
        )
    )
    print_permissions(manifest)


def _release_json(release: VerifiedRelease) -> dict[str, Any]:
    manifest = release.manifest
    return {
        "valid": True,
        "name": manifest.name,
        "version": manifest.version,
        "digest": release.digest.sha256,
        "files": release.digest.files,
        "bytes": release.digest.total_bytes,
        "package_dir": str(release.package_dir),
        "permissions": [
            {
                "permission": str(request.permission),
                "means": request.permission.describe(),
                "optional": request.optional,
                "reason": request.reason,
            }
            for request in manifest.permissions
        ],
        "manifest": manifest.model_dump(mode="json"),
    }


AllowOlder = Annotated[
    bool, typer.Option("--allow-older", help="Take it although a newer release is registered under its name.")
]


def register(
    path: PackagePath, allow_older: AllowOlder = False, state_dir: StateDir = None, as_json: Json = False
) -> None:
    """Verify a package and register it, without starting it. `cardcage plugin load` proves that it loads, too."""
    run(_register(path, allow_older, state_dir, as_json))


async def _register(path: Path, allow_older: bool, state_dir: StateDir, as_json: bool) -> None:
    from cardcage.cli.host import open_host

    async with open_host(state_dir) as host:
        view = await host.manager.register_plugin(path, allow_older=allow_older)
    if as_json:
        print_json(view.to_json())
        return
    console().print(f"registered {view.name} {safe(view.version)} (sha256:{view.digest[:12]})")
    print_permissions(view.manifest)


def load(
    path: PackagePath,
    config: Config = None,
    grant: Grant = None,
    timeout: Timeout = None,
    isolation: Isolation = "process",
    policy: Policy = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Verify a package, register it, and prove that it loads. Where it does not, all stays as it was."""
    from cardcage.cli.host import Target
    from cardcage.trust import verify

    target = Target(plugin=verify(path).manifest.name, label=None)
    settings: dict[str, Any] = {
        "config": read_config(config),
        "grants": grant,
        "timeout_s": timeout,
        "isolation": isolation,
        "policy": policy,
    }
    proof = run(_load(path, target, state_dir, settings))
    if as_json:
        print_json(proof)
        return
    out = console()
    out.print(f"registered {target.plugin} {safe(proof['version'])} (sha256:{proof['digest'][:12]})")
    out.print(f"loaded as process {proof['pid']} in {proof['load_ms']} ms, {proof['walls']}; ended again")


async def _load(path: Path, target: Target, state_dir: StateDir, settings: dict[str, Any]) -> dict[str, Any]:
    from cardcage.cli.host import open_host
    from cardcage.cli.running import Stopwatch, walls

    async with open_host(state_dir, target=target, **settings) as host:
        before = host.store.plugin(target.plugin)
        known = {str(record.id) for record in host.store.instances(target.plugin)}
        try:
            view = await host.manager.register_plugin(path)
            watch = Stopwatch()
            await host.manager.load_plugin(target.plugin)
        except CardcageError:
            await _undo(host, target, before, known)
            raise
        live = host.manager.plugin_info(target.plugin).instances[0]
        return {
            "name": view.name,
            "version": view.version,
            "digest": view.digest,
            "state": live.state.value,
            "pid": live.pid,
            "load_ms": watch.elapsed_ms(),
            "isolation": live.isolation,
            "walls": walls(host.manager.report(target.instance)),
        }


async def _undo(host: Host, target: Target, before: InstalledPlugin | None, known: set[str]) -> None:
    """Leave the registry, and the folders that the attempt made, as they were."""
    from cardcage.registry import RemoveInstance
    from cardcage.registry.registration import register, unregister

    if host.store.plugin(target.plugin) is None:
        return
    await host.manager.unload_plugin(target.plugin)
    made = [record.id for record in host.store.instances(target.plugin) if str(record.id) not in known]
    if before is None:
        unregister(host.store, target.plugin)
    else:
        register(host.store, [before])
        host.store.commit(*(RemoveInstance(id=each) for each in made))
    for kind in ("data", "temp"):
        # Only an empty folder goes: data that an earlier release left is the operator's.
        with contextlib.suppress(OSError):
            (host.home.root / kind / target.instance).rmdir()


def remove(name: PluginName, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Take a plugin and its instances out of the registry. Its data folder stays."""
    run(_remove(name, state_dir, as_json))


async def _remove(name: str, state_dir: StateDir, as_json: bool) -> None:
    from cardcage.cli.host import Target, installed, open_host

    target = Target.parse(name)
    async with open_host(state_dir) as host:
        plugin = installed(host.store, target)
        if target.label:
            await host.manager.remove_instance(target.instance)
        else:
            await host.manager.remove_plugin(target.plugin)
        data_dir = host.home.root / "data" / target.instance.replace("/", "@")
    kept = str(data_dir) if data_dir.is_dir() else None
    if as_json:
        print_json({"removed": target.instance, "version": plugin.version, "data_dir": kept})
        return
    console().print(
        f"removed {target.instance} {safe(plugin.version)}" + (f"; its data stays in {kept}" if kept else "")
    )
