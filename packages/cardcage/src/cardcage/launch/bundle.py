"""A container's bundle on disk: its configuration, and a root folder that holds only what things are mounted on."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cardcage.launch.container_main import CODE_DIR
from cardcage.sandbox.mounts import grant_mismatch, is_closed_to_others
from cardcage.sandbox.oci import IdMap, oci_config, rootfs_entries
from cardcage.sandbox.plan import PYTHON_DIR, Mount, PythonLayout, SandboxPlan

INTERPRETER: Final = f"{PYTHON_DIR}/bin/python3"
_MAIN: Final = f"{CODE_DIR}/cardcage/launch/container_main.py"
COMMAND: Final = (INTERPRETER, "-I", "-S", "-B", "-X", "utf8", _MAIN)

RUNTIME_LOG: Final = "runtime.log"
_HOST_CODE: Final = ("__init__.py", "sandbox", "launch")
"""What of this package the first process needs. It is on no path of the plugin's, and holds no secret."""


def launcher_mounts(python: PythonLayout) -> tuple[Mount, ...]:
    """What a container needs besides the plan's own: an interpreter to start with, and the first process's code."""
    home = Path(__file__).resolve().parent.parent
    return (
        Mount(kind="bind", source=python.executable, target=INTERPRETER, executable=True),
        *(
            Mount(kind="bind", source=source, target=f"{PYTHON_DIR}/lib/{Path(source).name}", executable=True)
            for source in python.libraries
        ),
        *(Mount(kind="bind", source=str(home / name), target=f"{CODE_DIR}/cardcage/{name}") for name in _HOST_CODE),
    )


def launcher_environment(python: PythonLayout) -> dict[str, str]:
    """What the first process needs to find its interpreter's own library; nothing where there is none."""
    return {"LD_LIBRARY_PATH": f"{PYTHON_DIR}/lib"} if python.libraries else {}


class Bundle:
    """One container's folder. Raises `OSError` where the plan's sources are not what the plan says."""

    def __init__(
        self,
        folder: Path,
        plan: SandboxPlan,
        python: PythonLayout,
        *,
        host_ids: tuple[int, int],
        extra: tuple[Mount, ...] = (),
    ) -> None:
        self.folder = folder
        self._plan = plan
        self._own = launcher_mounts(python)
        self._environment = launcher_environment(python)
        self._host_ids = host_ids
        self._extra = extra
        self._id_maps: dict[str, IdMap] = {}
        self._missing: list[str] = []

    def make(self) -> None:
        """Write it. What a failure leaves is taken away by `remove`."""
        root = self.folder / "rootfs"
        # The container's user passes through; what is in it is nobody's secret, since it is nearly empty.
        self.folder.mkdir(mode=0o711)
        root.mkdir(mode=0o755)
        for entry in (*rootfs_entries(self._plan, self._own), *self._extra):
            self._put(f"{root}{entry.target}", entry)
        config = self.folder / "config.json"
        config.touch(mode=0o600)  # it names what was granted, and the folder lets others pass
        config.write_text(json.dumps(self._config()), encoding="utf-8")

    def remove(self) -> None:
        """Take the folder away; harmless twice. Nothing is deleted where something is still mounted in it."""
        if mounted_beneath(self.folder):
            raise OSError(16, "something is still mounted in it", str(self.folder))
        shutil.rmtree(self.folder, ignore_errors=True)

    def last_words(self) -> str:
        """What the runtime said, in one line."""
        try:
            said = (self.folder / RUNTIME_LOG).read_bytes()[-2000:].decode(errors="backslashreplace")
        except OSError:
            return ""
        return "; ".join(line.strip() for line in said.splitlines() if line.strip())

    def _config(self) -> dict[str, Any]:
        return oci_config(
            self._plan,
            command=COMMAND,
            own_mounts=self._own,
            environment=self._environment,
            id_maps=self._id_maps,
            host_ids=self._host_ids,
            without=self._missing,
        )

    def _put(self, place: str, entry: Mount) -> None:
        match entry.kind:
            case "symlink":
                _make_parents(place)
                os.symlink(entry.source, place)
            case "file":
                _make_file(place, entry.content)
            case "bind":
                self._prepare_bind(place, entry)
            case _:
                os.makedirs(place, mode=0o755, exist_ok=True)

    def _prepare_bind(self, place: str, entry: Mount) -> None:
        try:
            found = os.stat(entry.source)
        except FileNotFoundError:
            if not entry.optional:
                raise
            self._missing.append(entry.target)
            return
        is_folder = stat.S_ISDIR(found.st_mode)
        if entry.whole_folder is not None and entry.whole_folder is not is_folder:
            number = 20 if entry.whole_folder else 21
            raise OSError(number, grant_mismatch(entry.source, is_folder=is_folder), entry.source)
        if is_folder:
            os.makedirs(place, mode=0o755, exist_ok=True)
        elif not os.path.lexists(place):
            _make_file(place, "")
        if entry.granted and self._plan.identity.outside_uid is not None and is_closed_to_others(entry, found):
            self._id_maps[entry.target] = (found.st_uid, found.st_gid)


def _make_parents(place: str) -> None:
    os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)


def _make_file(place: str, content: str) -> None:
    _make_parents(place)
    with open(place, "w", encoding="utf-8") as file:
        file.write(content)
    os.chmod(place, 0o644)


def mounted_beneath(folder: Path) -> Sequence[str]:
    """What is mounted at `folder` or beneath it, as this process sees it."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        places = [line.split()[4] for line in file]
    top = str(folder)
    return [place for place in places if place == top or place.startswith(f"{top}/")]
