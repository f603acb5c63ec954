"""Turns a folder into a verified release: its digest, its manifest, and the certainty that the two fit together."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cardcage.foundation.errors import Fault, InvalidDocument, Refused
from cardcage.foundation.limits import MANIFEST_BYTES_MAX
from cardcage.manifest import EntryPoint, Manifest, Runtime, normalise_config_schema, parse_manifest
from cardcage.manifest.document import read_document
from cardcage.trust.digest import PackageContents, PackageDigest, read_package
from cardcage.trust.host import Host, host_faults, this_host

MANIFEST_FILES: Final = ("plugin.yaml", "plugin.yml", "manifest.yaml", "plugin.json")
CONFIG_SCHEMA_FILE: Final = "config_schema.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRelease:
    """A package whose bytes were read, named and found to be what its manifest says.

    `package_dir` is where it stands, links resolved.
    """

    manifest: Manifest
    digest: PackageDigest
    package_dir: Path
    manifest_file: str = MANIFEST_FILES[0]


def verify(package_dir: Path, *, host: Host | None = None) -> VerifiedRelease:
    """Read and check the package in this folder, once. Nothing of it is imported or run.

    Raises `InvalidDocument` with every fault found: code `manifest_invalid` where all of them stand in the manifest,
    `package_invalid` otherwise.
    """
    found = read_package(package_dir, keep=(*MANIFEST_FILES, CONFIG_SCHEMA_FILE), keep_bytes_max=MANIFEST_BYTES_MAX)
    faults = list(found.faults)
    manifest = None
    name = _manifest_file(found, faults)
    if name is not None:
        try:
            manifest = parse_manifest(
                found.kept[name], source=str(package_dir / name), encoding="json" if name.endswith(".json") else "yaml"
            )
        except InvalidDocument as invalid:
            if not faults:
                raise
            faults += [Fault(path=_inside(name, fault.path), message=fault.message) for fault in invalid.faults]
    if manifest is not None:
        faults += host_faults(host or this_host(), manifest.requires, manifest.platforms)
        faults += entry_point_faults(manifest.entrypoint, found.paths, found.executables)
        manifest = _with_config_schema(manifest, found.kept.get(CONFIG_SCHEMA_FILE), faults)
    if faults or manifest is None or name is None:
        raise InvalidDocument(f'plugin package "{package_dir}"', faults, code="package_invalid", path=str(package_dir))
    return VerifiedRelease(
        manifest=manifest, digest=found.digest, package_dir=package_dir.resolve(), manifest_file=name
    )


def confirm_digest(package_dir: Path, expected: str, *, plugin: str, version: str) -> None:
    """Refuse a package whose bytes are not those that were verified; to be asked before each start.

    Raises `Refused` with code `digest_mismatch`.
    """
    found = read_package(package_dir)
    if found.faults or found.digest.sha256 != expected:
        what = str(found.faults[0]) if found.faults else f"digest {found.digest.sha256[:12]}..."
        raise Refused(
            f'plugin "{plugin}" {version} was changed after it was verified: '
            f"expected digest {expected[:12]}..., found {what}",
            code="digest_mismatch",
            hint="if the change is meant, register the plugin again",
            plugin=plugin,
            version=version,
            path=str(package_dir),
        )


def entry_point_faults(entry: EntryPoint, paths: Collection[str], executables: Collection[str]) -> list[Fault]:
    """What keeps the entry point from being found among the package's files."""
    if entry.url is not None:
        return []
    if entry.file is not None:
        return _file_faults(entry, entry.file.removeprefix("./"), paths, executables)
    if entry.module is None or entry.kind is not Runtime.PYTHON:
        return []
    base = entry.module.replace(".", "/")
    if any(path in (f"{base}.py", f"{base}/__init__.py") or path.startswith(f"{base}/") for path in paths):
        return []
    modules = sorted({module for path in paths if (module := _module_of(path))})
    return [
        Fault(
            path="entrypoint",
            message=f"{entry.raw!r} needs {base}.py or {base}/__init__.py in the package, "
            f"which has {_near(entry.module, modules, 'no Python module')}",
        )
    ]


def _file_faults(entry: EntryPoint, file: str, paths: Collection[str], executables: Collection[str]) -> list[Fault]:
    if file not in paths:
        found = _near(file, sorted(paths), "nothing else")
        return [Fault(path="entrypoint", message=f"{entry.raw!r} needs {file} in the package, which has {found}")]
    if entry.kind is Runtime.EXECUTABLE and file not in executables:
        return [Fault(path="entrypoint", message=f"{file} is not executable; chmod +x {file}")]
    return []


def _module_of(path: str) -> str | None:
    if not path.endswith(".py"):
        return None
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _near(wanted: str, names: list[str], none: str) -> str:
    if not names:
        return none
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    shown = close or names[:5]
    return ", ".join(shown) + (", ..." if not close and len(names) > len(shown) else "")


def _manifest_file(found: PackageContents, faults: list[Fault]) -> str | None:
    present = [name for name in MANIFEST_FILES if name in found.paths]
    if len(present) == 1 and present[0] in found.kept:
        return present[0]
    if len(present) == 1:
        faults.append(Fault(path=present[0], message="the manifest must be a file, and this is a link"))
    elif present:
        faults.append(Fault(path="", message=f"expected one manifest, found {len(present)}: {', '.join(present)}"))
    elif found.paths or not found.faults:
        at_top = [path for path in found.paths if "/" not in path]
        seen = _near("plugin.yaml", at_top, "no files at its top")
        faults.append(Fault(path="", message=f"expected a manifest ({', '.join(MANIFEST_FILES)}), found {seen}"))
    return None


def _with_config_schema(manifest: Manifest, data: bytes | None, faults: list[Fault]) -> Manifest:
    if data is None:
        return manifest
    schema = _read_schema(data, faults)
    if schema is None or schema == manifest.config_schema:
        return manifest
    if manifest.config_schema is not None:
        faults.append(
            Fault(path=CONFIG_SCHEMA_FILE, message="differs from config_schema in the manifest; keep one of the two")
        )
        return manifest
    return manifest.model_copy(update={"config_schema": schema})


def _read_schema(data: bytes, faults: list[Fault]) -> dict[str, Any] | None:
    document, found = read_document(data, "json")
    schema = None
    if document is not None and not found:
        schema, found = normalise_config_schema(document.tree, CONFIG_SCHEMA_FILE)
        faults += found
    else:
        faults += [Fault(path=_inside(CONFIG_SCHEMA_FILE, fault.path), message=fault.message) for fault in found]
    return schema


def _inside(file: str, path: str) -> str:
    return f"{file}: {path}" if path else file
