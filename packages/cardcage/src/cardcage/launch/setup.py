"""What every walled start has in common: the data folder in the right hands, and the errors of a start that fails."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any, Final

from cardcage.foundation.errors import CardcageError, PluginFault, Refused
from cardcage.launch.runner import LaunchSpec
from cardcage.sandbox.report import Layer, LayerName, LayerStatus

ENCRYPTED: Final = Layer(
    name=LayerName.ENCRYPTION,
    status=LayerStatus.ENFORCED,
    detail="mutual TLS 1.3, with a certificate for this start alone",
)
NOT_ENCRYPTED: Final = Layer(
    name=LayerName.ENCRYPTION, status=LayerStatus.OFF, detail="no other process can see the socket"
)


async def hand_over_data(spec: LaunchSpec) -> None:
    """Give the data folder to the instance's uid, where it has one and does not own it yet.

    Without namespaces the plugin's temporary files are in a folder of the host too, which is emptied here.
    """
    uid = spec.plan.identity.outside_uid
    try:
        if spec.plan.fallback:
            await asyncio.to_thread(_empty, spec.temp_dir)
        for folder in (spec.data_dir, spec.temp_dir) if spec.plan.fallback else (spec.data_dir,):
            if uid is not None and os.stat(folder).st_uid != uid:
                await asyncio.to_thread(_give, folder, uid)
    except OSError as error:
        raise setup_failed(spec, f"its data folder {spec.data_dir}: {error.strerror}", errno=error.errno) from error
    except RecursionError:
        # Only a plugin that means harm nests its folders a thousand deep: it has spoilt its own start, and no other's.
        raise setup_failed(spec, f"its folders {spec.data_dir} are nested too deep to be walked") from None


def _empty(folder: Path) -> None:
    """Remove what an instance before this one left there; links are removed and not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def _give(folder: Path, uid: int) -> None:
    for _, folders, files, here in os.fwalk(folder, topdown=False):
        for name in (*folders, *files):
            os.chown(name, uid, uid, dir_fd=here, follow_symlinks=False)
    os.chown(folder, uid, uid)  # last: a hand-over that was cut short is taken up again


def wall_error(spec: LaunchSpec, step: str, number: int, detail: str) -> CardcageError:
    """The error for a step of the walls that failed, as the process itself told it."""
    if step == "floor":
        return Refused(
            f"plugin {spec.plugin!r} {spec.version} was not started: of the walls that its plan asks for, {detail}",
            code="below_floor",
            hint="`cardcage doctor` says what this machine lacks",
            plugin=spec.plugin,
            version=spec.version,
        )
    return setup_failed(spec, f"{step}: {detail}", step=step, errno=number)


def setup_failed(spec: LaunchSpec, what: str, **fields: Any) -> PluginFault:
    """The error for walls that could not be put up."""
    return PluginFault(
        f"plugin {spec.plugin!r} {spec.version} could not be walled in: {what}",
        code="setup_failed",
        hint="`cardcage doctor` says which layers work on this machine",
        plugin=spec.plugin,
        version=spec.version,
        instance=spec.instance,
        **fields,
    )


def check_group_floor(spec: LaunchSpec, layer: Layer) -> None:
    """Refuse where the plan asks for limits that no group keeps: the child knows that it entered one, but not that."""
    if layer.name in spec.plan.floor and layer.status is not LayerStatus.ENFORCED:
        raise wall_error(spec, "floor", 0, f"not enforced: {layer.name} ({layer.detail})")


def no_encryption(spec: LaunchSpec, why: str) -> Refused:
    """The error where a link was asked for and cannot be had."""
    return Refused(
        f"plugin {spec.plugin!r} {spec.version} was not started: its wire is to be enciphered, and {why}",
        code="encryption_unavailable",
        hint="isolation process, container and vm have it",
        plugin=spec.plugin,
        version=spec.version,
    )


def no_walls(why: str) -> Refused:
    """The error where this machine lets nothing be walled in."""
    return Refused(
        f"no walls can be put up on this machine, so nothing is started: {why}",
        code="no_walls",
        hint="`cardcage doctor` says what to change; isolation: unconfined runs a plugin with every right",
    )
