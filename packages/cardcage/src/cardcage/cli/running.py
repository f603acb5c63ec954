"""`cardcage plugin start|stop|call`: plugins at work, for as long as the command runs, since no host runs beside it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cardcage.cli.loop import run
from cardcage.cli.options import (
    Config,
    Grant,
    Isolation,
    Json,
    PluginName,
    Policy,
    StateDir,
    Timeout,
    read_arguments,
    read_config,
)
from cardcage.cli.text import console, print_json, safe, write_line

if TYPE_CHECKING:
    from cardcage.cli.host import Host, Target
    from cardcage.manager import PluginView
    from cardcage.runtime import LogLine
    from cardcage.sandbox.report import EnforcementReport


class Stopwatch:
    """Time since it was made."""

    def __init__(self) -> None:
        self._began_s = time.perf_counter()

    def elapsed_ms(self) -> float:
        return round((time.perf_counter() - self._began_s) * 1000, 1)


def walls(report: EnforcementReport | None) -> str:
    """The walls of a running process in a few words, with every layer that does not hold in full."""
    if report is None or not report.asked:
        return "no walls"
    short = [f"{layer.name} {layer.status}" for layer in report.asked if layer not in report.enforced]
    return report.summary() + (f" ({', '.join(short)})" if short else "")


def start(
    name: PluginName,
    config: Config = None,
    grant: Grant = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Keep it running, with its log, until Ctrl-C.")
    ] = False,
    timeout: Timeout = None,
    isolation: Isolation = "process",
    policy: Policy = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Prove that a plugin starts behind its walls, and remember it as enabled, with this config and these grants.

    A plugin runs only while a host runs: this one ends it again, unless it is kept in the foreground.
    """
    from cardcage.cli.host import Target

    settings: dict[str, Any] = {
        "config": read_config(config),
        "grants": grant,
        "timeout_s": timeout,
        "isolation": isolation,
        "policy": policy,
    }
    run(_start(Target.parse(name), state_dir, settings, foreground=foreground, as_json=as_json))


async def _start(
    target: Target, state_dir: StateDir, settings: dict[str, Any], *, foreground: bool, as_json: bool
) -> None:
    from cardcage.cli.host import installed, open_host

    watch = _print_log_line if foreground and not as_json else None
    async with open_host(state_dir, target=target, watch=watch, **settings) as host:
        plugin = installed(host.store, target)
        stopwatch = Stopwatch()
        await _bring_up(host, target)
        proof = _proof(host, target, stopwatch.elapsed_ms())
        _remember(host, target, config=settings["config"], grants=settings["grants"])
        if as_json:
            print_json(proof)
        else:
            head = f"{target.instance} {safe(plugin.version)}"
            console().print(
                f"{head} is {proof['state']}: process {proof['pid']}, {proof['start_ms']} ms, {proof['walls']}"
            )
        if foreground:
            await _until_ended(host, target)
    if not as_json and not foreground:
        console().print(
            "It started, and was ended again: a plugin runs only while a host runs. It is remembered as enabled; "
            "keep it running here with --foreground."
        )


async def _bring_up(host: Host, target: Target) -> None:
    if target.label is None:
        await host.manager.start_plugin(target.plugin)
    else:
        await host.manager.start_instance(target.instance)


def _proof(host: Host, target: Target, start_ms: float) -> dict[str, Any]:
    view = host.manager.plugin_info(target.plugin)
    live = next(each for each in view.instances if each.id == target.instance)
    report = host.manager.report(target.instance)
    return {
        "instance": live.id,
        "version": view.version,
        "state": live.state.value,
        "pid": live.pid,
        "start_ms": start_ms,
        "isolation": live.isolation,
        "walls": walls(report),
        "report": report.to_json() if report is not None else None,
        "enabled": True,
    }


def _remember(host: Host, target: Target, *, config: dict[str, Any] | None, grants: list[str] | None) -> None:
    from cardcage.cli.host import installed, trial_record
    from cardcage.registry import PutInstance, PutPlugin

    plugin = replace(installed(host.store, target), enabled=True)
    record = replace(trial_record(host.store, target, config=config, grants=grants), desired="started")
    host.store.commit(PutPlugin(plugin=plugin), PutInstance(record=record))


async def _until_ended(host: Host, target: Target) -> None:
    """Keep it running until Ctrl-C cancels this, or until the platform gives up on the plugin."""
    import asyncio

    gave_up = asyncio.Event()

    def see(event: Any) -> None:
        if event.data.get("instance") == target.instance:
            gave_up.set()

    unsubscribe = host.manager.subscribe("plugin.gave_up", see)
    try:
        await gave_up.wait()
    finally:
        unsubscribe()
    raise typer.Exit(1)


def _print_log_line(plugin: str, line: LogLine) -> None:
    import sys

    from cardcage.cli.plugins import format_line

    write_line(sys.stdout, f"[plugin:{plugin}] {format_line(line.to_json())}")
    sys.stdout.flush()


def stop(name: PluginName, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Disable a plugin, or one instance of it: no host starts it any more. One in a foreground elsewhere goes on."""
    run(_stop(name, state_dir, as_json))


async def _stop(name: str, state_dir: StateDir, as_json: bool) -> None:
    from cardcage.cli.host import Target, installed, open_host, trial_record
    from cardcage.foundation.errors import Misuse
    from cardcage.foundation.names import InstanceId
    from cardcage.registry import Change, PutInstance, PutPlugin

    target = Target.parse(name)
    async with open_host(state_dir) as host:
        plugin = installed(host.store, target)
        known = host.store.instance(InstanceId(target.instance)) is not None
        if target.label and not known:
            raise Misuse(
                f"there is no instance {target.instance!r}", code="unknown_instance", hint="cardcage plugin instances"
            )
        changes: list[Change] = []
        if not target.label:
            changes.append(PutPlugin(plugin=replace(plugin, enabled=False)))
        if known:
            record = trial_record(host.store, target, config=None, grants=None)
            changes.append(PutInstance(record=replace(record, desired="stopped")))
        host.store.commit(*changes)
    if as_json:
        print_json({"instance": target.instance, "version": plugin.version, "enabled": False, "desired": "stopped"})
        return
    console().print(
        f"{target.instance} {safe(plugin.version)} is disabled: no host starts it any more. "
        "One that runs in a foreground elsewhere goes on until it is ended there."
    )


def call(
    name: PluginName,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="One of the plugin's public methods.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARG", help="Arguments: each JSON, or else a text.", show_default=False),
    ] = None,
    config: Config = None,
    grant: Grant = None,
    timeout: Timeout = None,
    isolation: Isolation = "process",
    policy: Policy = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Start a plugin, call one of its methods, print the result as JSON, and end it again.

    A config and grants given here are for this call alone.
    """
    from cardcage.cli.host import Target

    settings: dict[str, Any] = {
        "config": read_config(config),
        "grants": grant,
        "timeout_s": timeout,
        "isolation": isolation,
        "policy": policy,
    }
    result = run(_call(Target.parse(name), method, read_arguments(arguments or []), state_dir, settings))
    print_json({"result": result} if as_json else result)


async def _call(
    target: Target, method: str, arguments: list[Any], state_dir: StateDir, settings: dict[str, Any]
) -> Any:
    from cardcage.cli.host import installed, open_host

    async with open_host(state_dir, target=target, **settings) as host:
        installed(host.store, target)
        await _bring_up(host, target)
        result = await host.manager.call(target.instance, method, *arguments)
        _check_result(host.manager.plugin_info(target.plugin), method, result)
        return result


def _check_result(view: PluginView, method: str, result: Any) -> None:
    """Hold a result against the extension point that the plugin provides, where an installed pack declares it."""
    import msgspec

    from cardcage.contracts import index_points
    from cardcage.foundation.errors import PluginFault
    from cardcage.manager.packs import installed_packs

    points = index_points(point for pack in installed_packs() for point in pack.extension_points)
    for ref in view.provides:
        declared = points[ref].methods.get(method) if ref in points else None
        if declared is None or declared.stream:
            continue
        try:
            msgspec.convert(result, declared.result_type)
        except msgspec.ValidationError as error:
            raise PluginFault(
                f'plugin "{view.name}" {view.version} answered {method}() with the wrong shape for {ref}: {error}',
                code="invalid_result",
                plugin=view.name,
                version=view.version,
                method=method,
            ) from error
