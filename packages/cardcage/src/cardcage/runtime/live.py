"""A process that answers: from the launch to a loaded plugin, and the orderly way out.

`open_live` either hands back a `Live` whose plugin has been imported, described and initialised, or leaves nothing
behind: no process, no descriptor, no task.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cardcage.audit import NO_TRAIL, Action, Trail
from cardcage.channel import Channel, ChannelHandler, Peer
from cardcage.contracts import check_provider
from cardcage.egress import Gateway, Injection, Relay, Tell
from cardcage.foundation.errors import Fault, InvalidDocument, PluginFault, Refused
from cardcage.launch.runner import Exit, Process, Runner
from cardcage.manifest import check_metadata, validate_config
from cardcage.permissions.credentials import SecretSource
from cardcage.runtime.blueprint import Blueprint
from cardcage.runtime.deaths import died
from cardcage.runtime.description import PluginDescription
from cardcage.runtime.logbook import LogBook
from cardcage.runtime.refused_connections import hear_refusals
from cardcage.runtime.streams import LineReader, read_lines

_LAST_WORDS_S = 1.0  # how long to wait for a dead process's last prints and exit status; they are there already


@dataclass(slots=True, eq=False)
class Live:
    """One started process with its open channel. `ending` says that the host itself is bringing it to its end."""

    process: Process
    channel: Channel
    description: PluginDescription
    opened_at_s: float
    ending: bool = False
    killed_for: str | None = None
    interrupted: str | None = None
    """The method that was being called when the connection was lost; of several, the first that was told."""
    relay: Relay | None = None
    readers: list[tuple[asyncio.ReadTransport, LineReader]] = field(
        default_factory=list[tuple[asyncio.ReadTransport, LineReader]]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an instance's processes are started with: who starts them, who relays for them, who is told of it."""

    runner: Runner
    gateway: Gateway
    secrets: SecretSource
    tell_egress: Tell
    trail: Trail = NO_TRAIL


async def open_live(
    blueprint: Blueprint, around: Surroundings, handler: ChannelHandler, logbook: LogBook, now_s: float
) -> Live:
    """Start the process, greet it, load the plugin, check what it says of itself, and initialise it."""
    runner = around.runner
    # Before anything is started: a secret that is missing is the operator's to mend, and no start is needed to see it.
    secrets = _gather_secrets(blueprint, around)
    injections = around.gateway.prepare(blueprint.egress) if blueprint.egress is not None else ()
    process = await runner.start(blueprint.spec)
    readers: list[tuple[asyncio.ReadTransport, LineReader]] = []
    channel: Channel | None = None
    relay: Relay | None = None
    sock_is_ours = True
    try:
        relay = _open_relay(blueprint, process, around, injections)
        hear_refusals(blueprint, process, relay, around.tell_egress)
        await _read_streams(process, logbook, readers)
        peer = Peer(plugin=blueprint.plugin, version=blueprint.version, instance=str(blueprint.instance))
        sock_is_ours = False
        channel = await Channel.open(
            process.sock, handler=handler, who=peer, timeout_s=blueprint.policy.connect_timeout_s
        )
        description = await _load(blueprint, channel, secrets)
        check_description(blueprint, description)
        await lifecycle(blueprint, channel, "initialize", blueprint.policy.start_timeout_s)
        return Live(
            process=process,
            channel=channel,
            description=description,
            opened_at_s=now_s,
            relay=relay,
            readers=readers,
        )
    except BaseException as error:
        hung_up = isinstance(error, PluginFault) and error.code == "connection_lost"
        exit_ = await _see_end(runner, process, patience_s=_LAST_WORDS_S if hung_up else 0)
        if channel is not None:
            await channel.close("start failed")
        process.close_listeners()
        if relay is not None:
            await relay.aclose()
        await _drain(readers)
        if sock_is_ours:
            process.sock.close()
        for descriptor in (process.stdout, process.stderr):
            if descriptor is not None:
                os.close(descriptor)
        if hung_up:
            raise died(blueprint, exit_, "while it was being loaded") from error
        raise


async def close_live(runner: Runner, live: Live, *, timeout_s: float) -> Exit:
    """Say goodbye, wait for at most `timeout_s`, then kill. The process is gone when this returns.

    With 0 it is killed at once: it was found to answer no more.
    """
    live.ending = True
    if not timeout_s:
        runner.kill(live.process)
    await live.channel.close("unload")
    try:
        return await _see_end(runner, live.process, patience_s=timeout_s)
    finally:
        await _close_relay(live)
        await _drain(live.readers)


async def bury(runner: Runner, live: Live) -> Exit:
    """See a process that has failed to its end: killed where it still runs, its last prints read."""
    reason = live.channel.closed.result() if live.channel.closed.done() else None
    hung_up = reason is not None and reason.code in ("connection_lost", "goodbye")
    exit_ = await _see_end(runner, live.process, patience_s=_LAST_WORDS_S if hung_up else 0)
    await _close_relay(live)
    await live.channel.close("process ended")
    await _drain(live.readers)
    return exit_


def _gather_secrets(blueprint: Blueprint, around: Surroundings) -> dict[str, str]:
    """The secrets that the plugin is handed. Raises `Refused` where one that it needs cannot be had."""
    values: dict[str, str] = {}
    for name in (*blueprint.secrets, *blueprint.optional_secrets):
        try:
            values[name] = around.secrets.secret(name)
        except Refused as error:
            around.trail.note(Action.SECRET_REFUSED, error.message, allowed=False, secret=name)
            if name in blueprint.secrets:
                raise Refused(
                    f"{blueprint.label} was not started: {error.message}",
                    code=error.code,
                    hint=error.hint,
                    plugin=blueprint.plugin,
                    version=blueprint.version,
                    secret=name,
                ) from error
        else:
            around.trail.note(Action.SECRET_HANDED, "it is granted", allowed=True, secret=name)
    return values


def _open_relay(
    blueprint: Blueprint, process: Process, around: Surroundings, injections: Sequence[Injection]
) -> Relay | None:
    """Take over the listeners; what a plugin connects to while it is being imported is served already."""
    if blueprint.egress is None or not process.listeners:
        return None
    relay = around.gateway.open(blueprint.egress, process.listeners, around.tell_egress, injections)
    process.listeners = []
    return relay


async def _close_relay(live: Live) -> None:
    if live.relay is not None:
        await live.relay.aclose()


async def lifecycle(blueprint: Blueprint, channel: Channel, step: str, timeout_s: float) -> None:
    """Call `cardcage.<step>`; an answer of False is the plugin's own word that it failed."""
    answer = await channel.call(f"cardcage.{step}", [], result_type=bool | None, timeout_s=timeout_s)
    if answer is False:
        raise PluginFault(
            f"{blueprint.label} answered False to {step}(), which means that it could not",
            code=f"{step}_failed",
            plugin=blueprint.plugin,
            version=blueprint.version,
        )


def check_description(blueprint: Blueprint, description: PluginDescription) -> None:
    """Hold what the code says of itself against the manifest, its extension points and its config schema."""
    faults: list[Fault] = []
    if description.metadata is not None:
        faults.extend(check_metadata(blueprint.manifest, description.metadata))
    for point in blueprint.points:
        faults.extend(check_provider(point, description.method_names()))
    if faults:
        raise PluginFault(
            f"{blueprint.label} is not what its manifest says: " + "; ".join(map(str, faults)),
            code="contract_broken",
            plugin=blueprint.plugin,
            version=blueprint.version,
            faults=[{"path": fault.path, "message": fault.message} for fault in faults],
        )
    if blueprint.manifest.config_schema is None and description.config_schema:
        _check_config(blueprint, description.config_schema)


def _check_config(blueprint: Blueprint, schema: dict[str, Any]) -> None:
    """Hold the config against the schema that the code gives; a schema that is none is the plugin's fault."""
    try:
        validate_config(schema, dict(blueprint.config), subject=f"the config of {blueprint.label}")
    except InvalidDocument as error:
        if error.code != "config_schema_invalid":
            raise
        raise PluginFault(
            f"{blueprint.label} gave a config schema that is none: {error.message}",
            code="contract_broken",
            plugin=blueprint.plugin,
            version=blueprint.version,
        ) from error


async def _load(blueprint: Blueprint, channel: Channel, secrets: Mapping[str, str]) -> PluginDescription:
    entry = blueprint.manifest.entrypoint
    inside = blueprint.spec.plan.inside
    request: dict[str, Any] = {
        "entrypoint": {
            "module": entry.module,
            "file": entry.file,
            "attribute": entry.attribute,
            "manifest_name": blueprint.plugin,
            "version": blueprint.version,
            "package_dir": inside.package_dir,
        },
        "context": {
            "config": dict(blueprint.config),
            "data_dir": inside.data_dir,
            "temp_dir": inside.temp_dir,
            "plugin": blueprint.plugin,
            "version": blueprint.version,
            "instance": str(blueprint.instance),
            "log_level": "info",
            "secrets": dict(secrets),
            "permissions": [str(permission) for permission in blueprint.grants],
            "missing_permissions": list(blueprint.missing),
        },
    }
    return await channel.call(
        "cardcage.load", [request], result_type=PluginDescription, timeout_s=blueprint.policy.start_timeout_s
    )


async def _read_streams(
    process: Process, logbook: LogBook, readers: list[tuple[asyncio.ReadTransport, LineReader]]
) -> None:
    def sink(level: str, source: str) -> Callable[[str], None]:
        return lambda line: logbook.write(level, source, line)

    for source, level in (("stdout", "info"), ("stderr", "warning")):
        descriptor: int | None = getattr(process, source)
        if descriptor is not None:
            setattr(process, source, None)  # `read_lines` owns it from here on, also where it fails or is cancelled
            readers.append(await read_lines(descriptor, sink(level, source)))


async def _see_end(runner: Runner, process: Process, *, patience_s: float) -> Exit:
    """Wait for the end, and kill after `patience_s`: one that hung up by itself is to say with which status it left."""
    waiting = asyncio.ensure_future(runner.wait(process))
    try:
        done, _ = await asyncio.wait({waiting}, timeout=patience_s)
        if not done:
            runner.kill(process)
        return await waiting
    except BaseException:
        runner.kill(process)
        waiting.cancel()
        raise


async def _drain(readers: list[tuple[asyncio.ReadTransport, LineReader]]) -> None:
    """Read what the process printed last; a descendant that still holds the pipe is not waited for."""
    if readers:
        await asyncio.wait({reader.ended for _, reader in readers}, timeout=_LAST_WORDS_S)
    for transport, _ in readers:
        transport.close()
