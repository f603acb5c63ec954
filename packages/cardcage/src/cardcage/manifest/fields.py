"""Every key of a manifest, in one table: the parser, the published schema and the reference page are all held to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestKey:
    """One key: its name, its other spellings, what it takes in words, an example in YAML, and what it is for."""

    name: str
    takes: str
    example: str
    help: str
    other_names: tuple[str, ...] = ()
    required: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Every spelling."""
        return (self.name, *self.other_names)


KEYS: Final[tuple[ManifestKey, ...]] = (
    ManifestKey(
        name="name",
        takes="lower-case ASCII words joined by `-`, `_` or `.`, at most 100 characters",
        example="prometheus-metrics",
        help="The plugin's name, by which everything else refers to it.",
        required=True,
    ),
    ManifestKey(
        name="version",
        takes="a semantic version in full",
        example="1.2.0",
        help="The release's version. Quotes are not needed.",
        required=True,
    ),
    ManifestKey(
        name="entrypoint",
        other_names=("entry_point",),
        takes="`module:Class`, `file.py[:Class]`, `file.js[#Export]`, `module.wasm`, `script.rn`, `./program` or a URL",
        example="collector:PrometheusCollector",
        help="Where its code begins, relative to the package.",
        required=True,
    ),
    ManifestKey(
        name="runtime",
        takes="`python`, `node`, `executable`, `wasm`, `rune`, `service` or `mcp`",
        example="python",
        help="What runs it, where the entry point does not tell or something else is meant.",
    ),
    ManifestKey(
        name="description",
        takes="a text of at most 10,000 characters",
        example="Reads metrics from Prometheus.",
        help="What it does, for people who choose plugins.",
    ),
    ManifestKey(name="author", takes="a text", example="Ada Lovelace", help="Who wrote it."),
    ManifestKey(
        name="license",
        takes="a text, best an SPDX identifier",
        example="Apache-2.0",
        help="Under which licence it comes.",
    ),
    ManifestKey(
        name="homepage",
        takes="an http or https URL",
        example="https://example.com/plugin",
        help="Where to read about it.",
    ),
    ManifestKey(
        name="repository",
        takes="an http or https URL",
        example="https://example.com/plugin.git",
        help="Where its source is.",
    ),
    ManifestKey(
        name="keywords",
        other_names=("tags",),
        takes="a list of texts",
        example="[metrics]",
        help="Words to find it by.",
    ),
    ManifestKey(
        name="type",
        other_names=("plugin_type",),
        takes="a word; `-` and `_` are the same",
        example="metrics_collector",
        help="What kind of plugin it is; an installed pack may let a type stand for an extension point.",
    ),
    ManifestKey(
        name="provides",
        takes="a list of `name@version`",
        example="[metrics_collector@1]",
        help="The extension points whose methods it has.",
    ),
    ManifestKey(
        name="requires",
        takes="a mapping of host names to version ranges, or a list of `name>=1.2`",
        example='{cardcage: ">=0.1"}',
        help="The versions of host products that it works with.",
    ),
    ManifestKey(
        name="dependencies",
        takes="a list of names or `name>=1.2`, or a mapping of names to version ranges",
        example='["cost-store>=1.0,<2"]',
        help="Plugins that must be there, and are started first.",
    ),
    ManifestKey(
        name="permissions",
        takes="a list of capabilities, or a mapping of network, files, secrets, capabilities and subprocess",
        example='{network: ["prometheus.local:9090"]}',
        help="What it asks to be allowed. It gets none of it unless an operator grants it.",
    ),
    ManifestKey(
        name="limits",
        takes="a mapping of memory, cpu, processes, descriptors, disk, inodes, network, connections and log_rate",
        example="{memory: 256MiB, cpu: 0.5}",
        help="What it needs at most; an operator may set less.",
    ),
    ManifestKey(
        name="config_schema",
        takes="JSON Schema, or a mapping of keys to `{type, required, default, ...}`",
        example="{endpoint: {type: string, required: true}}",
        help="What its configuration may hold; checked before each start.",
    ),
    ManifestKey(
        name="platforms",
        other_names=("supported_platforms",),
        takes="a list of systems, each with a machine if need be",
        example="[linux, macos-arm64]",
        help="Where it runs; everywhere, if nothing is said.",
    ),
    ManifestKey(
        name="isolation",
        takes="`process`, `container`, `vm` or `unconfined`",
        example="process",
        help="The least wall it wants around it; `unconfined` only where the operator allows it.",
    ),
    ManifestKey(
        name="encrypt",
        takes="`always`",
        example="always",
        help="Encipher its connection to the host, also where no other process can see it.",
    ),
    ManifestKey(
        name="priority",
        takes="a whole number from 1 to 100; 50 if nothing is said",
        example="10",
        help="Its place among others that provide the same: lower comes first.",
    ),
    ManifestKey(
        name="concurrency",
        takes="a number of threads, or a mapping of threads and processes, each from 1 to 64",
        example="{threads: 4}",
        help="How many calls it can serve at once.",
    ),
    ManifestKey(
        name="enabled",
        takes="`true` or `false`; true if nothing is said",
        example="true",
        help="Whether it starts without being asked for.",
    ),
    ManifestKey(name="target", takes="a word", example="alibaba-cloud", help="What a cloud adapter adapts to."),
    ManifestKey(
        name="resource_types",
        other_names=("resource-type", "resource_type"),
        takes="a word, or a list of them",
        example="[ec2]",
        help="The kinds of resource that an optimizer looks at.",
    ),
    ManifestKey(
        name="channels", takes="a word, or a list of them", example="[slack, teams]", help="Where a notifier delivers."
    ),
    ManifestKey(name="system", takes="a word", example="service-now", help="What an integration connects to."),
    ManifestKey(name="cloud", takes="a word", example="aws", help="The cloud it is about."),
    ManifestKey(
        name="$schema",
        takes="a URL",
        example="manifest.schema.json",
        help="For editors that check manifests while they are written; not read.",
    ),
)
"""Keys that begin with `x-` may stand beside these, and are kept as they are."""
