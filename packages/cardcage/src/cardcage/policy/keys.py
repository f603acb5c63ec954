"""Every key of a policy file in one table: the schema and the reference page are written from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyKey:
    """One key: its name, what it takes in words, an example in YAML, and what it means."""

    name: str
    takes: str
    example: str
    help: str


TOP_KEYS: Final = (
    PolicyKey(
        name="level",
        takes="`strict`, `standard` or `permissive`; `standard` if nothing is said",
        example="strict",
        help="The rules to begin with.",
    ),
    PolicyKey(
        name="default",
        takes="`allow` or `deny`; `allow` if nothing is said",
        example="deny",
        help="What becomes of a plugin that no rule allows.",
    ),
    PolicyKey(name="rules", takes="a list of rules", example="[]", help="The operator's own rules."),
    PolicyKey(
        name="approvals",
        takes="a list of `{plugin, digest}`",
        example="[]",
        help="Releases, by the digest of their bytes, that rules with `approval: required` let through.",
    ),
)
RULE_KEYS: Final = (
    PolicyKey(
        name="name",
        takes="a text without quotation marks, at most 100 characters; its place in the file if nothing is said",
        example="no wildcards",
        help="How refusals name the rule. No two rules share one.",
    ),
    PolicyKey(
        name="reason", takes="a sentence", example="the firewall is not ours", help="Told to whoever meets the rule."
    ),
    PolicyKey(
        name="when",
        takes="a mapping of conditions",
        example="{plugin: ocr}",
        help="All must hold. Without it the rule always applies.",
    ),
    PolicyKey(
        name="unless",
        takes="a mapping of conditions",
        example="{environment: staging}",
        help="Where all of these hold, the rule does not apply.",
    ),
    PolicyKey(name="then", takes="a mapping of effects", example="{deny: true}", help="What follows; required."),
)
CONDITION_KEYS: Final = (
    PolicyKey(
        name="plugin",
        takes="a pattern or a list of them; `*` stands for any characters, `?` for one",
        example="aws-*",
        help="The plugin's registered name.",
    ),
    PolicyKey(
        name="publisher",
        takes="a pattern or a list of them; case does not matter",
        example="Acme*",
        help="The author that the manifest claims.",
    ),
    PolicyKey(
        name="verified",
        takes="`true` or `false`",
        example="true",
        help="Whether a signature proves the publisher. No signature is checked yet, so that `true` holds of none.",
    ),
    PolicyKey(
        name="source",
        takes="the absolute path of a folder, or a list of them",
        example="/srv/plugins",
        help="The folder that holds the package, at any depth, links resolved.",
    ),
    PolicyKey(name="type", takes="a pattern or a list of them", example="notifier", help="The `type` of the manifest."),
    PolicyKey(
        name="provides",
        takes="a pattern or a list of them",
        example="optimizer@*",
        help="An extension point that the manifest names under `provides`.",
    ),
    PolicyKey(
        name="runtime", takes="a runtime or a list of them", example="executable", help="What runs the plugin's code."
    ),
    PolicyKey(
        name="isolation",
        takes="`unconfined`, `process`, `container`, `vm`, or a list of them",
        example="unconfined",
        help="The isolation that was chosen for it, before any rule asks for more.",
    ),
    PolicyKey(
        name="environment",
        takes="a pattern or a list of them",
        example="production",
        help="What the host is told to be: `environment` in its configuration, or `CARDCAGE_ENVIRONMENT`.",
    ),
    PolicyKey(
        name="label",
        takes="a pattern or a list of them",
        example="eu-*",
        help="The label of the instance; the default instance has none.",
    ),
    PolicyKey(
        name="permission",
        takes="a permission or a list of them",
        example='"network:*.example.com:443"',
        help="A permission that it asks for. The rule then speaks of the permissions that match.",
    ),
    PolicyKey(
        name="broad",
        takes="`network`, `read`, `write`, `subprocess`, or a list of them",
        example="network",
        help="A permission of that kind that stands for what nobody named: a pattern of hosts, a range of addresses, "
        "every port, any program, all files.",
    ),
    PolicyKey(
        name="limits",
        takes="a mapping of limits to comparisons (`> >= < <= ==`), or `none`",
        example='{memory: "> 1GiB"}',
        help="The limits that it asks for. One that it does not ask for is without bound, and so more than any number.",
    ),
)
EFFECT_KEYS: Final = (
    PolicyKey(
        name="deny",
        takes="`true`",
        example="true",
        help="The start, or the permissions that the rule speaks of. Nothing undoes a denial.",
    ),
    PolicyKey(
        name="allow",
        takes="`true`",
        example="true",
        help="The start, where `default` is `deny`.",
    ),
    PolicyKey(
        name="grant",
        takes="a permission or a list of them",
        example='["read:/srv/bills/"]',
        help="Grants, beside those of the operator's settings. A plugin gets of them what it asks for.",
    ),
    PolicyKey(
        name="isolation",
        takes="`process`, `container` or `vm`",
        example="container",
        help="The least wall around it; the strongest of all rules holds.",
    ),
    PolicyKey(
        name="floor",
        takes="a layer or a list of them",
        example="[landlock_files]",
        help="Layers without which it does not start; those of all rules together.",
    ),
    PolicyKey(
        name="floor_where_possible",
        takes="a layer or a list of them",
        example="[cgroup_limits]",
        help="The same, of those layers that this machine was seen to enforce.",
    ),
    PolicyKey(
        name="caps",
        takes="a mapping of limits",
        example="{memory: 512MiB}",
        help="The most that it gets, whatever it asks for; the lowest of all rules holds.",
    ),
    PolicyKey(
        name="defaults",
        takes="a mapping of limits",
        example="{cpu: 0.5}",
        help="What it gets where its manifest asks for nothing; a later rule's replaces an earlier one's.",
    ),
    PolicyKey(
        name="bounded",
        takes="`all`, a limit or a list of them",
        example="all",
        help="Limits that must have a bound after caps and defaults; it does not start with one that has none.",
    ),
    PolicyKey(
        name="encrypt",
        takes="`always`",
        example="always",
        help="TLS on local sockets to it, too.",
    ),
    PolicyKey(
        name="fallback",
        takes="`allow` or `never`",
        example="never",
        help="Whether the weaker walls will do that a machine without user namespaces has. `never` wins.",
    ),
    PolicyKey(
        name="unconfined",
        takes="`named`, `any` or `never`",
        example="named",
        help="Whether it may run without walls, where the operator asks for that of this plugin (`named`) or also "
        "where it is asked for all. `never` wins.",
    ),
    PolicyKey(
        name="approval",
        takes="`required`",
        example="required",
        help="It does not start before `approvals` has the digest of its bytes.",
    ),
    PolicyKey(name="warn", takes="a sentence", example="ask Ada first", help="Said at each start."),
)
