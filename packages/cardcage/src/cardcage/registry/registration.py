"""Installs releases: load, validate, register, as one step.

Everything that can fail comes before the one commit that writes, so a failure at any step leaves the registry as it
was. What takes time or other people's code (a probe in a sandbox, an approval) stands between `prepare` and `register`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, cast

from cardcage.foundation.errors import Refused
from cardcage.manifest import Manifest, parse_version
from cardcage.registry.model import Change, InstalledPlugin, InstanceRecord, PutInstance, PutPlugin, RemovePlugin
from cardcage.registry.resolve import node_of, resolve
from cardcage.registry.store import Store
from cardcage.trust.verify import VerifiedRelease

_DESCRIBED: Final = ("methods", "hooks", "events", "tools", "schedules")
_DESCRIBED_BY: Final = {"methods": "name", "hooks": "name", "tools": "name", "schedules": "cron"}


def prepare(
    release: VerifiedRelease,
    *,
    now_s: float,
    before: InstalledPlugin | None = None,
    enabled: bool | None = None,
    priority: int | None = None,
    description: Mapping[str, Any] | None = None,
) -> InstalledPlugin:
    """The record of this release, not yet written anywhere.

    `before` is what is installed under the name. Where an operator had set `enabled` or `priority` apart from what its
    manifest said, that outlives the upgrade; the time of registration outlives a registration of the same bytes.
    `description` is what the plugin said of itself when it was loaded.
    """
    manifest = release.manifest
    same = before is not None and before.digest == release.digest.sha256
    kept_enabled = before.enabled if before and before.enabled != before.manifest.enabled else manifest.enabled
    kept_priority = before.priority if before and before.priority != before.manifest.priority else manifest.priority
    return InstalledPlugin(
        name=manifest.name,
        version=manifest.version,
        digest=release.digest.sha256,
        package_dir=release.package_dir,
        manifest=manifest,
        enabled=kept_enabled if enabled is None else enabled,
        priority=kept_priority if priority is None else priority,
        registered_at=before.registered_at if before is not None and same else now_s,
        capabilities=capability_map(manifest, description),
    )


def older_release(release: VerifiedRelease, before: InstalledPlugin | None) -> Refused | None:
    """Why this release may not take the place of the one that is installed, or None where it may.

    Whoever can put an older release in the place of a newer one brings back the holes that the newer one closed. The
    version that was registered last is remembered until the plugin is removed.
    """
    name, version = release.manifest.name, release.manifest.version
    old, new = parse_version(before.version) if before else None, parse_version(version)
    if before is None or old is None or new is None or new >= old:
        return None
    return Refused(
        f'plugin "{name}" {version} was not registered: {before.version} is, and this is older',
        code="older_release",
        hint="to go back on purpose: cardcage plugins register PATH --allow-older",
        plugin=name,
        version=version,
        registered=before.version,
    )


def register(
    store: Store, plugins: Iterable[InstalledPlugin], *, instances: Iterable[InstanceRecord] = (), strict: bool = False
) -> tuple[InstalledPlugin, ...]:
    """Write these plugins, and with them these instances, in one commit; answers them as they were written.

    Dependencies are resolved over all that is installed then: a plugin that cannot start is written with its `problem`,
    and one that was waiting for these loses its own. With `strict` such a plugin raises `InvalidDocument` (code
    `dependencies_unmet`) instead, and nothing is written.
    """
    new = {plugin.name: plugin for plugin in plugins}
    before = {plugin.name: plugin for plugin in store.plugins()}
    after = before | new
    resolution = resolve(map(node_of, after.values()))
    if strict:
        resolution.require(*new)
    settled = _with_problems(after, resolution.problems)
    changes: list[Change] = [PutPlugin(plugin=each) for name, each in settled.items() if each != before.get(name)]
    changes += [PutInstance(record=record) for record in instances]
    if changes:
        store.commit(*changes)
    return tuple(settled[name] for name in new)


def unregister(store: Store, name: str) -> None:
    """Forget a plugin and its instances; those that need it get a `problem` that says so, in the same commit."""
    before = {plugin.name: plugin for plugin in store.plugins()}
    after = {each: plugin for each, plugin in before.items() if each != name}
    settled = _with_problems(after, resolve(map(node_of, after.values())).problems)
    changed = (PutPlugin(plugin=plugin) for each, plugin in settled.items() if plugin != before[each])
    store.commit(RemovePlugin(name=name), *changed)


def capability_map(manifest: Manifest, description: Mapping[str, Any] | None = None) -> Mapping[str, tuple[str, ...]]:
    """What a plugin offers and asks, by kind; kinds with nothing in them are left out.

    From the manifest: `type`, `provides`, `permissions`, `resource_types`, `channels`. From what it said when it was
    loaded: `methods`, `hooks`, `events`, `tools`, `schedules`.
    """
    capabilities: dict[str, tuple[str, ...]] = {
        "type": (manifest.type,) if manifest.type else (),
        "provides": tuple(map(str, manifest.provides)),
        "permissions": tuple(str(request.permission) for request in manifest.permissions),
        "resource_types": manifest.resource_types,
        "channels": manifest.channels,
    }
    for kind in _DESCRIBED:
        listed = cast(Iterable[Any], (description or {}).get(kind) or ())
        capabilities[kind] = tuple(_word(each, _DESCRIBED_BY.get(kind)) for each in listed)
    return {kind: words for kind, words in capabilities.items() if words}


def _with_problems(
    plugins: Mapping[str, InstalledPlugin], problems: Mapping[str, tuple[str, ...]]
) -> dict[str, InstalledPlugin]:
    return {
        name: replace(plugin, problem="; ".join(problems[name]) if name in problems else None)
        for name, plugin in plugins.items()
    }


def _word(entry: Any, key: str | None) -> str:
    return str(cast(Mapping[str, Any], entry)[key]) if key is not None and isinstance(entry, Mapping) else str(entry)
