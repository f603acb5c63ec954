"""Manifests of both dialects load as printed, and a bad one gets every fault at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from cardcage.foundation.errors import InvalidDocument
from cardcage.foundation.names import InterfaceRef
from cardcage.manifest import Concurrency, Dependency, Limits, Manifest, Runtime, manifest_json_schema, parse_manifest

METRICS_COLLECTOR = """\
name: prometheus-metrics
version: 0.1.0
entrypoint: collector:PrometheusCollector
plugin_type: metrics_collector
requires:
  cloudmind_core: ">=0.1.0"
permissions:
  network: ["prometheus.local:9090"]
config_schema:
  endpoint: {type: string, required: true}
  auth_token: {type: string, required: false}
"""
RIGHTSIZER = """\
   name: ec2-rightsizer
   version: 1.0.0
   entry_point: optimizer.py
   type: optimizer
   cloud: aws
   resource_types:
     - ec2
   permissions:
     - ReadInstanceMetrics
"""
LEAST = "name: sample\nversion: 1.0.0\nentrypoint: sample:Sample\n"
SNIPPETS = {
    "cloud adapter": "type: cloud-adapter\ntarget: alibaba-cloud\n",
    "optimizer": "type: optimizer\nresource-type: compute\n",
    "notifier": "type: notifier\nchannels: [slack, teams]\n",
    "integration": "type: integration\nsystem: service-now\n",
    "permissions": "permissions:\n  - ReadCostData\n  - WriteRecommendations\n  - AlertManagement\n",
}


def faults_of(data: str | bytes, **options: Any) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        parse_manifest(data, **options)
    assert caught.value.code == "manifest_invalid"
    return [str(fault) for fault in caught.value.faults]


def asked(manifest: Manifest) -> list[str]:
    return [str(request.permission) for request in manifest.permissions]


def test_the_metrics_collector_loads_as_printed() -> None:
    manifest = parse_manifest(METRICS_COLLECTOR)
    assert (manifest.name, manifest.version, manifest.type) == ("prometheus-metrics", "0.1.0", "metrics_collector")
    assert manifest.runtime is Runtime.PYTHON
    assert (manifest.entrypoint.module, manifest.entrypoint.attribute) == ("collector", "PrometheusCollector")
    assert manifest.requires == {"cloudmind_core": ">=0.1.0"}
    assert asked(manifest) == ["network:prometheus.local:9090"]
    assert manifest.config_schema is not None
    assert manifest.config_schema["properties"] == {"endpoint": {"type": "string"}, "auth_token": {"type": "string"}}
    assert manifest.config_schema["required"] == ["endpoint"]


def test_the_rightsizer_loads_as_printed() -> None:
    manifest = parse_manifest(RIGHTSIZER)
    assert (manifest.name, manifest.type, manifest.cloud) == ("ec2-rightsizer", "optimizer", "aws")
    assert (manifest.entrypoint.file, manifest.entrypoint.attribute) == ("optimizer.py", None)
    assert manifest.resource_types == ("ec2",)
    assert asked(manifest) == ["capability:ReadInstanceMetrics"]


def test_the_four_types_and_the_list_of_capabilities_load_as_printed() -> None:
    found = {name: parse_manifest(LEAST + snippet) for name, snippet in SNIPPETS.items()}
    assert (found["cloud adapter"].type, found["cloud adapter"].target) == ("cloud_adapter", "alibaba-cloud")
    assert (found["optimizer"].type, found["optimizer"].resource_types) == ("optimizer", ("compute",))
    assert (found["notifier"].type, found["notifier"].channels) == ("notifier", ("slack", "teams"))
    assert (found["integration"].type, found["integration"].system) == ("integration", "service-now")
    assert asked(found["permissions"]) == [
        "capability:ReadCostData",
        "capability:WriteRecommendations",
        "capability:AlertManagement",
    ]


@pytest.mark.parametrize("text", [METRICS_COLLECTOR, RIGHTSIZER, *(LEAST + snippet for snippet in SNIPPETS.values())])
def test_json_says_the_same_as_yaml(text: str) -> None:
    as_json = json.dumps(yaml.safe_load(text))
    assert parse_manifest(as_json, source="plugin.json") == parse_manifest(text)
    assert parse_manifest(as_json, encoding="json") == parse_manifest(text)


@pytest.mark.parametrize("text", [METRICS_COLLECTOR, RIGHTSIZER, *(LEAST + snippet for snippet in SNIPPETS.values())])
def test_a_manifest_survives_being_stored(text: str) -> None:
    manifest = parse_manifest(text)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


FULL = (
    LEAST
    + """\
description: |
  Does much.
  And more.
author: Ada Lovelace
license: Apache-2.0
homepage: https://example.com/
repository: https://example.com/sample.git
keywords: [one, two, one]
provides: [greeter@1, optimizer@2]
requires: ["cardcage>=0.1,<2", cloudmind_core]
dependencies: [first, "second>=1.2", third@^1.0, "fourth 1.2.3"]
permissions:
  network: ["api.example.com:443", {host: db.example, port: 5432}, {value: "*.example.org:443", optional: true}]
  files: {read: ["${config.bill}"], write: [/srv/reports/]}
  read: /srv/one.csv
  secrets: [SLACK_TOKEN]
  capabilities: [{name: ReadCostData, optional: true, reason: to compare}, ReadCostData]
  subprocess: ["*"]
limits: {memory: 256MiB, cpu: 0.5, processes: 4, descriptors: 64, disk: 1GB, network: 10Mbit/s, log_rate: 50/s}
platforms: [linux, macos-arm64]
isolation: container
priority: 10
concurrency: {threads: 4, processes: 2}
enabled: false
x-team: {name: blue}
"""
)


def test_every_key_is_read() -> None:
    manifest = parse_manifest(FULL.replace('"fourth 1.2.3"', "fourth==1.2.3"))
    assert manifest.description == "Does much.\nAnd more.\n"
    assert manifest.keywords == ("one", "two")
    assert manifest.provides == (InterfaceRef("greeter", 1), InterfaceRef("optimizer", 2))
    assert manifest.requires == {"cardcage": ">=0.1,<2", "cloudmind_core": "*"}
    assert manifest.dependencies == (
        Dependency(name="first"),
        Dependency(name="second", range=">=1.2"),
        Dependency(name="third", range="^1.0"),
        Dependency(name="fourth", range="==1.2.3"),
    )
    assert asked(manifest) == [
        "network:api.example.com:443",
        "network:db.example:5432",
        "network:*.example.org:443",
        "read:${config.bill}",
        "write:/srv/reports/",
        "read:/srv/one.csv",
        "secret:SLACK_TOKEN",
        "capability:ReadCostData",
        "subprocess:*",
    ]
    optional = {str(request.permission) for request in manifest.permissions if request.optional}
    assert optional == {"network:*.example.org:443"}  # what is asked for twice is optional only if it is so twice
    assert manifest.limits == Limits(
        memory_bytes=256 * 2**20,
        cpu_cores=0.5,
        processes=4,
        descriptors=64,
        disk_bytes=10**9,
        network_bytes_per_s=1_250_000,
        log_lines_per_s=50,
    )
    assert manifest.platforms == ("linux", "macos-arm64")
    assert (manifest.isolation, manifest.priority, manifest.enabled) == ("container", 10, False)
    assert manifest.concurrency == Concurrency(threads=4, processes=2)
    assert manifest.extras == {"x-team": {"name": "blue"}}


def test_a_dependency_with_a_bare_version_asks_for_a_sign() -> None:
    assert any("dependencies[3]" in fault for fault in faults_of(FULL))


def test_what_is_not_said_has_its_default() -> None:
    manifest = parse_manifest(LEAST)
    assert manifest.limits == Limits()
    assert (manifest.priority, manifest.enabled, manifest.isolation) == (50, True, None)
    assert (manifest.config_schema, manifest.type, manifest.permissions) == (None, None, ())
    assert parse_manifest(LEAST + "type:\nlimits:\nkeywords: ~\n") == manifest


def test_every_fault_is_reported_at_once_with_its_path_and_line() -> None:
    text = """\
name: Ec2_Rightsizer!
version: 1.0
entrypoint: /abs.py
runtime: pyton
typ: x
permissions:
  network: ["a", 3, "b:1"]
  netwrk: []
limits: {memory: lots, cpu: 0, mem: 3}
priority: 500
enabled: yes
provides: [greeter, greeter@1]
config_schema:
  a: {type: strin, requird: true}
dependencies: {first: ">>1"}
homepage: javascript:alert(1)
requires: {cardcage: 1.0}
"""
    faults = faults_of(text)
    assert len(faults) == 18
    for words in (
        "name: expected lower-case ASCII words joined by -, _ or . (did you mean ec2-rightsizer?), found",
        'version: expected a semantic version such as 1.0.0, found "1.0" (line 2)',
        "entrypoint: expected a path relative to the package",
        "runtime: expected one of python, node, executable, wasm, rune, service, mcp",
        "typ: no such key; did you mean type? (line 5)",
        "permissions.network[0]: expected host:port, found 'a' (line 7)",
        "permissions.network[1]: expected a text",
        "permissions.netwrk: no such key; did you mean network? (line 8)",
        'limits.memory: expected a size such as 256MiB, or a number of bytes, found "lots"',
        "limits.cpu: expected cores such as 0.5",
        "limits.mem: no such key; did you mean memory?",
        "priority: expected a whole number from 1 to 100, found the number 500",
        'enabled: expected true or false, found "yes"',
        'provides[0]: expected an extension point such as greeter@1, found "greeter"',
        'config_schema.a.type: expected one of string, integer, number, boolean, array, object, null, found "strin"',
        "config_schema.a.requird: no such key; did you mean required?",
        "dependencies.first: expected a version range",
        "homepage: expected a URL",
    ):
        assert any(fault.startswith(words) for fault in faults), words


@pytest.mark.parametrize(
    ("written", "read"),
    [("1.0.0", "1.0.0"), ('"1.0.0"', "1.0.0"), ("1.2.3-rc.1+build", "1.2.3-rc.1+build"), ("1.10.0", "1.10.0")],
)
def test_a_version_needs_no_quotes(written: str, read: str) -> None:
    assert parse_manifest(LEAST.replace("1.0.0", written)).version == read


@pytest.mark.parametrize("written", ["1.0", "1", "1.10", "v1.0.0", "01.0.0", "1.0.0.0", "latest", "1e3", "true"])
def test_what_is_no_semantic_version_is_shown_as_it_was_written(written: str) -> None:
    (fault,) = faults_of(LEAST.replace("1.0.0", written))
    assert fault.startswith("version: expected a semantic version such as 1.0.0, found ")
    assert written in fault


@pytest.mark.parametrize("number", ["1.10", "2"])
def test_a_version_range_keeps_the_text_of_a_number(number: str) -> None:
    assert parse_manifest(LEAST + f"requires: {{cardcage: {number}}}\n").requires == {"cardcage": number}


def test_two_spellings_may_agree_but_not_contradict_each_other() -> None:
    assert parse_manifest(LEAST + "entry_point: sample:Sample\n").entrypoint.module == "sample"
    assert parse_manifest(LEAST + "type: optimizer\nplugin_type: optimizer\n").type == "optimizer"
    assert faults_of(LEAST + "entry_point: other:Other\nresource_types: [a]\nresource-type: b\n") == [
        "entry_point: contradicts entrypoint, which is another spelling of the same key (line 4)",
        "resource-type: contradicts resource_types, which is another spelling of the same key (line 6)",
    ]


def test_a_manifest_without_its_three_keys_is_told_all_three() -> None:
    assert [fault.split(":")[0] for fault in faults_of("description: nothing else\n")] == [
        "name",
        "version",
        "entrypoint",
    ]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("permissions: 3", "permissions: expected"),
        ("permissions: true", "permissions: expected a list of capabilities"),
        (
            "permissions: {subprocess: true}",
            'permissions.subprocess: expected a list of programs such as ["/usr/bin/git"]',
        ),
        ("permissions: {files: [/a]}", "permissions.files: expected a mapping of read and write"),
        ("permissions: {files: {execute: [/a]}}", "permissions.files.execute: no such key"),
        ("permissions: {read: [bill.csv]}", "permissions.read[0]: expected an absolute path, found 'bill.csv'"),
        ("permissions: {read: [/srv/../etc/shadow]}", 'permissions.read[0]: expected a path without ".."'),
        ("permissions: {network: [{optional: true}]}", "permissions.network[0]: expected one of the keys value, path"),
        ("permissions: {network: [{host: a, path: b}]}", "found path, host"),
        (
            "permissions: {secrets: [{name: A, optinal: true}]}",
            "permissions.secrets[0].optinal: no such key; did you mean",
        ),
        (
            "permissions: {secrets: [{name: A, optional: maybe}]}",
            "permissions.secrets[0].optional: expected true or false",
        ),
        ("permissions: ['network:nowhere']", "permissions[0]: expected host:port"),
        ("permissions: ['Read Cost Data']", "permissions[0]: expected the name of a capability"),
        ("permissions: {read: ['${env.HOME}']}", "placeholders of the form ${config.KEY}"),
        ("provides: 3", "provides: expected an extension point"),
        ("requires: {cardcage: 'newest'}", "requires.cardcage: expected a version range"),
        ("requires: {Card Cage: '1.0'}", 'requires["Card Cage"]: expected a host such as cardcage'),
        ("dependencies: [a, 'a>=2']", "dependencies[1]: names a a second time"),
        ("dependencies: ['>=2']", "dependencies[0]: expected a plugin's name"),
        ("limits: {memory: 5 bananas}", "limits.memory: expected a size"),
        ("limits: {memory: 99999999TiB}", "limits.memory: expected a size"),
        ("limits: {memory: 256M}", "limits.memory: expected a size"),
        ("limits: {cpu: -1}", "limits.cpu: expected cores"),
        ("limits: {processes: 1.5}", "limits.processes: expected a whole number"),
        ("limits: [memory]", "limits: expected a mapping of memory, cpu"),
        ("concurrency: 0", "concurrency: expected a whole number from 1 to 64"),
        ("concurrency: {threads: 65}", "concurrency.threads: expected a whole number from 1 to 64"),
        (
            "isolation: vmm",
            'isolation: expected one of process, container, vm, unconfined, found "vmm"; did you mean vm?',
        ),
        ("channels: [[slack]]", "channels[0]: expected a word"),
        ("keywords: ['two\\nlines', \"a\\nb\"]", "keywords[1]: expected a text of one line"),
        ("author: 42", "author: expected a text of one line (a text, so in quotes), found the number 42"),
        ("author: '   '", "author: expected a text of one line"),
        ("platforms: [Linux]", "platforms[0]: expected a system such as linux"),
        ("type: CloudAdapter", "type: expected lower-case words"),
        ("config_schema: []", "config_schema: expected a mapping, found a list of 0"),
    ],
)
def test_a_wrong_value_is_named_with_its_path(lines: str, words: str) -> None:
    assert any(words in fault for fault in faults_of(f"{LEAST}{lines}\n")), faults_of(f"{LEAST}{lines}\n")


def test_names_are_ascii_so_that_none_can_be_mistaken_for_another() -> None:
    (fault,) = faults_of(LEAST.replace("name: sample", "name: s\N{CYRILLIC SMALL LETTER A}mple"))
    assert fault.startswith("name: expected lower-case ASCII words")


def test_the_error_names_the_file_and_carries_the_faults_as_data() -> None:
    with pytest.raises(InvalidDocument, match=r"manifest plugins/x/plugin.yaml is not valid \(1 fault\)") as caught:
        parse_manifest(LEAST + "nme: x\n", source="plugins/x/plugin.yaml")
    assert caught.value.to_json()["faults"] == [{"path": "nme", "message": "no such key; did you mean name? (line 4)"}]


def test_the_published_schema_is_the_one_of_the_code(project_root: Any) -> None:
    published = json.loads((project_root / "protocol" / "manifest.schema.json").read_text())
    assert published == manifest_json_schema(), (
        "run: python -m cardcage.manifest.json_schema > protocol/manifest.schema.json"
    )
