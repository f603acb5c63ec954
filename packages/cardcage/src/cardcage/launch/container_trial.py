"""Which OCI runtimes work here, found by doing: each starts a container with a whole plan's walls, and ends it."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardcage.foundation.errors import CardcageError
from cardcage.foundation.names import InstanceId
from cardcage.launch.container import CONTAINER, ContainerRunner
from cardcage.launch.oci_runtimes import OciRuntime, installed_runtimes
from cardcage.launch.runner import LaunchSpec
from cardcage.sandbox.plan import PlanRequest, make_plan
from cardcage.sandbox.python_layout import core_libraries, find_python_layout
from cardcage.sandbox.report import LayerStatus, MachineReport, Mode

_TRIAL_UID = 65_532
"""Any unprivileged number will do: it owns nothing but an empty folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeTrial:
    """What came of trying one runtime. `detail` says why it does not work, or which layers are missing in it."""

    name: str
    path: str
    works: bool
    detail: str
    start_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The trial as plain data."""
        return {
            "name": self.name,
            "path": self.path,
            "works": self.works,
            "detail": self.detail,
            "start_ms": round(self.start_s * 1000),
        }


async def try_runtimes(machine: MachineReport) -> list[RuntimeTrial]:
    """Try every runtime that is installed, in the order in which they are chosen. A second each at most, as a rule."""
    return [await _try(runtime, machine) for runtime in installed_runtimes()]


async def _try(runtime: OciRuntime, machine: MachineReport) -> RuntimeTrial:
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cardcage-") as folder:
        try:
            async with ContainerRunner(runtime=runtime.name) as runner:
                process = await runner.start(_spec(Path(folder), machine))
                took_s = time.monotonic() - began_s
                runner.kill(process)
                await runner.wait(process)
        except CardcageError as error:
            return RuntimeTrial(name=runtime.name, path=runtime.path, works=False, detail=error.message)
    process.sock.close()
    process.close_listeners()
    for descriptor in (process.stdout, process.stderr):
        if descriptor is not None:
            os.close(descriptor)
    missing = [
        layer.name
        for layer in process.report.asked
        if layer.status is LayerStatus.UNAVAILABLE and layer.name != "cgroup_limits"  # it was given no group
    ]
    detail = f"without {', '.join(missing)}" if missing else "every layer of the plan was seen to hold inside"
    return RuntimeTrial(name=runtime.name, path=runtime.path, works=True, detail=detail, start_s=took_s)


def _spec(folder: Path, machine: MachineReport) -> LaunchSpec:
    folders = {name: folder / name for name in ("package", "data", "temp")}
    for path in folders.values():
        path.mkdir()
    plan = make_plan(
        PlanRequest(
            plugin="doctor",
            version="0",
            instance="doctor",
            isolation=CONTAINER,
            package_dir=folders["package"],
            data_dir=folders["data"],
            temp_dir=folders["temp"],
            library_dirs=core_libraries(),
            python=find_python_layout(),
            uid=_TRIAL_UID if machine.mode is Mode.ROOT else None,
        ),
        machine,
    )
    return LaunchSpec(
        instance=InstanceId("doctor"),
        plugin="doctor",
        version="0",
        plan=plan,
        package_dir=folders["package"],
        data_dir=folders["data"],
        temp_dir=folders["temp"],
    )
