"""What every walled start does with folders that a plugin has written into before."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from cardcage.foundation.errors import PluginFault
from cardcage.foundation.names import InstanceId
from cardcage.launch.runner import LaunchSpec
from cardcage.launch.setup import hand_over_data
from cardcage.sandbox.plan import Identity, Inside, SandboxPlan


async def test_folders_nested_without_end_spoil_the_plugins_own_start_with_one_sentence(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    _nest(data, sys.getrecursionlimit() * 2)
    uid = os.stat(data).st_uid + 1
    plan = SandboxPlan(
        plugin="deep",
        plugin_version="1.0.0",
        instance="deep",
        isolation="process",
        inside=Inside(package_dir="/plugin", data_dir="/data", temp_dir="/tmp"),
        identity=Identity(outside_uid=uid, outside_gid=uid),
    )
    spec = LaunchSpec(
        instance=InstanceId("deep"),
        plugin="deep",
        version="1.0.0",
        plan=plan,
        package_dir=tmp_path,
        data_dir=data,
        temp_dir=tmp_path,
    )
    try:
        with pytest.raises(PluginFault, match="nested too deep"):
            await hand_over_data(spec)
    finally:
        _unnest(data)
        shutil.rmtree(data)


def _nest(folder: Path, depth: int) -> None:
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)


def _unnest(folder: Path) -> None:
    """Take the nest apart from above: each inner folder is pulled up before the outer one goes."""
    while os.path.isdir(inner := folder / "d" / "d"):
        os.rename(inner, folder / "e")
        os.rmdir(folder / "d")
        os.rename(folder / "e", folder / "d")
