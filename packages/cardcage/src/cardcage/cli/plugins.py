"""`cardcage plugin list|info|status|instances|logs`: looking at what is registered. Nothing is started."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cardcage.cli.loop import run
from cardcage.cli.options import Json, PluginName, StateDir
from cardcage.cli.text import console, facts, print_json, safe, table

if TYPE_CHECKING:
    from cardcage.manager import PluginView
    from cardcage.registry import InstanceRecord


def list_(state_dir: StateDir = None, as_json: Json = False) -> None:
    """List the registered plugins."""
    run(_list(state_dir, as_json))


async def _list(state_dir: StateDir, as_json: bool) -> None:
    from cardcage.cli.host import open_host

    async with open_host(state_dir) as host:
        views = [host.manager.plugin_info(name) for name in host.manager.list_plugins()]
    if as_json:
        print_json([view.to_json() for view in views])
        return
    if not views:
        console().print("No plugins are registered. Register one: cardcage plugin load PATH")
        return
    shown = table("name", "version", "type", "enabled", "priority", "provides", "description")
    for view in views:
        provides = " ".join(map(str, view.provides))
        shown.add_row(
            view.name,
            safe(view.version),
            safe(view.type or "-"),
            "yes" if view.enabled else "no",
            str(view.priority),
            safe(provides or "-"),
            safe(view.problem or view.description),
        )
    console().print(shown)


def info(name: PluginName, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show everything known about one plugin: manifest, digest, what it asks for and what it offers."""
    view, _ = run(_view(name, state_dir))
    if as_json:
        print_json({**view.to_json(), "manifest": view.manifest.model_dump(mode="json")})
        return
    manifest = view.manifest
    out = console()
    out.print(f"{view.name} {safe(view.version)}", style="bold")
    out.print(
        facts(
            {
                "description": view.description or None,
                "author": manifest.author or None,
                "license": manifest.license or None,
                "type": view.type,
                "runtime": manifest.runtime.value,
                "entry point": manifest.entrypoint.raw,
                "provides": " ".join(map(str, view.provides)) or None,
                "enabled": "yes" if view.enabled else "no",
                "priority": view.priority,
                "package": view.package_dir,
                "digest": f"sha256:{view.digest}",
                "problem": view.problem,
            }
        )
    )
    print_permissions(manifest)


def print_permissions(manifest: Any) -> None:
    """What a manifest asks for, and what that means."""
    out = console()
    if not manifest.permissions:
        out.print("\nasks for no permissions: its own folders, no network, no files, no programs")
        return
    out.print("\nasks for")
    shown = table("permission", "which means", "")
    for request in manifest.permissions:
        means = safe(request.permission.describe())
        needed = "optional" if request.optional else "needed"
        shown.add_row(
            safe(request.permission), means, f"{needed}{safe(f': {request.reason}' if request.reason else '')}"
        )
    out.print(shown)


def status(name: PluginName, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Say whether a plugin would be started, and what it said last."""
    view, records = run(_view(name, state_dir))
    last = _log_files(state_dir).last(name, 5)
    if as_json:
        print_json(
            {
                "name": view.name,
                "version": view.version,
                "state": view.state.value,
                "enabled": view.enabled,
                "problem": view.problem,
                "instances": [_record_json(record) for record in records],
                "last_lines": last,
            }
        )
        return
    out = console()
    enabled = "enabled: a host starts it" if view.enabled else "disabled: no host starts it"
    out.print(f"{view.name} {safe(view.version)}: {view.state.value}; {enabled}")
    if view.problem:
        out.print(safe(view.problem), style="red")
    for line in last:
        out.print(format_line(line))


async def _view(name: str, state_dir: StateDir) -> tuple[PluginView, list[InstanceRecord]]:
    from cardcage.cli.host import Target, installed, open_host

    target = Target.parse(name)
    async with open_host(state_dir) as host:
        installed(host.store, target)
        return host.manager.plugin_info(target.plugin), list(host.store.instances(target.plugin))


def instances(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only those of this plugin.")] = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List the instances that are remembered, each with its config and grants."""
    records = run(_instances(name, state_dir))
    if as_json:
        print_json([_record_json(record) for record in records])
        return
    if not records:
        console().print(
            "No instances are remembered. One is when a plugin is started: cardcage plugin start NAME[/LABEL]"
        )
        return
    shown = table("instance", "plugin", "wanted", "config keys", "grants", "restarts")
    for record in records:
        shown.add_row(
            safe(record.id),
            safe(record.plugin),
            record.desired,
            safe(", ".join(record.config) or "-"),
            safe(" ".join(record.grants) or "-"),
            str(record.restarts.total),
        )
    console().print(shown)


async def _instances(name: str | None, state_dir: StateDir) -> list[InstanceRecord]:
    from cardcage.cli.host import Target, installed, open_host

    async with open_host(state_dir) as host:
        if name is not None:
            installed(host.store, Target.parse(name))
        return list(host.store.instances(Target.parse(name).plugin if name else None))


def _record_json(record: InstanceRecord) -> dict[str, Any]:
    return {
        "id": str(record.id),
        "plugin": record.plugin,
        "label": record.label,
        "config": dict(record.config),
        "grants": list(record.grants),
        "desired": record.desired,
        "restarts": record.restarts.total,
    }


def logs(
    name: PluginName,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=2000, help="How many lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until Ctrl-C.")] = False,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show what a plugin said in its last runs: log messages, prints, and the host's notes.

    JSON is one list; with --follow it is one line each, without end.
    """
    run(_view(name, state_dir))  # an unknown name is an error, not an empty log
    files = _log_files(state_dir)
    found = files.last(name, lines)
    if as_json and not follow:
        print_json(found)
        return
    for line in found:
        _print_line(line, as_json)
    if follow:
        for line in files.follow(name):
            _print_line(line, as_json)


def _print_line(line: dict[str, Any], as_json: bool) -> None:
    import json

    print(json.dumps(line) if as_json else format_line(line), flush=True)


def format_line(line: dict[str, Any]) -> str:
    """One log line for people."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(line.get("at") or 0)))
    return f"{at} {safe(line.get('level')):<7} {safe(line.get('source')):<6} {safe(line.get('text'))}"


def _log_files(state_dir: StateDir) -> Any:
    from cardcage.cli.logs import LogFiles
    from cardcage.manager.home import default_state_dir

    return LogFiles((state_dir or default_state_dir()).absolute())
