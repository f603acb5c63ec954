"""From the bytes of a manifest to a `Manifest`, or to every fault in it at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast, get_args

from cardcage.foundation.errors import Fault, InvalidDocument
from cardcage.foundation.names import PLUGIN_NAME_CHARS_MAX, InterfaceRef, is_plugin_name
from cardcage.manifest.asked import read_permissions
from cardcage.manifest.config_schema import normalise_config_schema
from cardcage.manifest.document import FAULTS_MAX, Document, Encoding, child_path, read_document
from cardcage.manifest.entrypoint import EntryPoint, Runtime, resolve_entry_point
from cardcage.manifest.fields import KEYS
from cardcage.manifest.gather import Gather, describe, did_you_mean
from cardcage.manifest.limits import LIMIT_KEYS, Limits
from cardcage.manifest.model import PRIORITY_DEFAULT, Concurrency, Dependency, Isolation, Manifest
from cardcage.manifest.versions import parse_version, range_fault

WORD: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_.:/-]*[A-Za-z0-9])?"
TYPE: Final = r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*"
HOST: Final = r"[a-z][a-z0-9]*(?:[-_.][a-z0-9]+)*"
PLATFORM: Final = r"[a-z0-9]+(?:[-_/][a-z0-9_]+)*"
WEB_URL: Final = r"https?://[A-Za-z0-9\[][^\s\"<>\\^`{|}]*"
DESCRIPTION_CHARS_MAX: Final = 10_000
CONCURRENCY_MAX: Final = 64

_DEPENDENCY: Final = re.compile(
    r"(?P<name>[A-Za-z0-9_.-]*[A-Za-z0-9_])\s*(?:@\s*)?(?P<range>(?:[=<>!^~*].*)|(?<=@).*)?"
)


def parse_manifest(data: bytes | str, *, source: str = "plugin.yaml", encoding: Encoding | None = None) -> Manifest:
    """The manifest in `data`. JSON is read where `encoding` says so or, without one, where `source` ends in `.json`.

    Never imports, opens or resolves anything. Raises `InvalidDocument(code="manifest_invalid")`, and nothing else, with
    every fault: its path, what was expected and what was found.
    """
    encoding = encoding or ("json" if source.endswith(".json") else "yaml")
    document, syntax_faults = read_document(data, encoding)
    faults = list(syntax_faults)
    manifest = None
    if document is not None:
        gather = Gather(document)
        manifest = _read_manifest(gather, document)
        # Where the text itself was refused, what it might have meant is not worth a second fault.
        refused = {fault.path for fault in faults}
        faults += (fault for fault in gather.faults if fault.path not in refused)
    if faults or manifest is None:
        raise InvalidDocument(f"manifest {source}", faults[:FAULTS_MAX], code="manifest_invalid", source=source)
    return manifest


def _read_manifest(gather: Gather, document: Document) -> Manifest | None:
    tree: Any = document.tree
    if not isinstance(tree, dict):
        gather.wrong("", "a mapping of keys to values", tree)
        return None
    members = cast(dict[str, Any], tree)
    gather.unknown_keys("", members, {name for key in KEYS for name in key.names})
    given = _unify_spellings(gather, members)
    values = {key: reader(gather, *given[key]) for key, reader in _READERS.items() if key in given}
    entrypoint = _read_entry_point(gather, given)
    extras = {key: value for key, value in members.items() if key.startswith("x-")}
    if gather.faults or entrypoint is None:
        return None
    return Manifest(entrypoint=entrypoint, runtime=entrypoint.kind, extras=extras, **values)


def _unify_spellings(gather: Gather, members: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """By the key's own name: the path it was written at, and its value. Keys without a value count as absent."""
    given: dict[str, tuple[str, Any]] = {}
    for key in KEYS:
        written = [name for name in key.names if members.get(name) is not None]
        for name in written[1:]:
            if members[name] != members[written[0]]:
                gather.fault(name, f"contradicts {written[0]}, which is another spelling of the same key")
        if written:
            given[key.name] = (child_path("", written[0]), members[written[0]])
        elif key.required:
            gather.fault(key.name, f"expected {key.takes}, found nothing")
    return given


def _read_entry_point(gather: Gather, given: Mapping[str, tuple[str, Any]]) -> EntryPoint | None:
    runtime = None
    if "runtime" in given:
        path, value = given["runtime"]
        if value not in [runtime.value for runtime in Runtime]:
            hint = did_you_mean(value, Runtime) if isinstance(value, str) else ""
            gather.fault(path, f"expected one of {', '.join(Runtime)}, found {describe(value)}{hint}")
        else:
            runtime = Runtime(value)
    if "entrypoint" not in given:
        return None
    path, value = given["entrypoint"]
    text = gather.text(path, value, "an entry point such as module:Class")
    if text is None:
        return None
    try:
        return resolve_entry_point(text, runtime)
    except ValueError as error:
        gather.fault(path, str(error))
        return None


def _read_name(gather: Gather, path: str, value: Any) -> str | None:
    text = gather.text(path, value, "a name such as ec2-rightsizer", most=PLUGIN_NAME_CHARS_MAX)
    if text is None or is_plugin_name(text):
        return text
    simpler = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    hint = f" (did you mean {simpler}?)" if is_plugin_name(simpler) else ""
    gather.wrong(path, f"lower-case ASCII words joined by -, _ or .{hint}", value)
    return None


def _read_version(gather: Gather, path: str, value: Any) -> str | None:
    raw = gather.raw_text(path, value)
    if not isinstance(raw, str) or parse_version(raw) is None:
        gather.fault(path, f"expected a semantic version such as 1.0.0, found {describe(raw)}")
        return None
    return raw


def _read_line(gather: Gather, path: str, value: Any) -> str | None:
    return gather.text(path, value, "a text of one line", r"[^\n\r\t]+")


def _read_description(gather: Gather, path: str, value: Any) -> str | None:
    return gather.text(path, value, "a text", most=DESCRIPTION_CHARS_MAX)


def _read_web_url(gather: Gather, path: str, value: Any) -> str | None:
    return gather.text(path, value, "a URL such as https://example.com", WEB_URL, most=2000)


def _read_word(gather: Gather, path: str, value: Any) -> str | None:
    return gather.text(path, value, "a word such as service-now", WORD, most=200)


def _read_words(gather: Gather, path: str, value: Any) -> tuple[str, ...]:
    return gather.texts(path, value, "a word such as ec2", WORD)


def _read_keywords(gather: Gather, path: str, value: Any) -> tuple[str, ...]:
    return gather.texts(path, value, "a text of one line", r"[^\n\r\t]+")


def _read_platforms(gather: Gather, path: str, value: Any) -> tuple[str, ...]:
    return gather.texts(path, value, "a system such as linux or macos-arm64", PLATFORM)


def _read_type(gather: Gather, path: str, value: Any) -> str | None:
    text = gather.text(path, value, "lower-case words joined by - or _, such as cost_source", TYPE, most=100)
    return text and text.replace("-", "_")


def _read_provides(gather: Gather, path: str, value: Any) -> tuple[InterfaceRef, ...]:
    expected = "an extension point such as greeter@1"
    refs: dict[InterfaceRef, None] = {}
    for member_path, member in gather.members(path, value, f"a list, each {expected}"):
        text = gather.text(member_path, member, expected, most=200)
        ref = InterfaceRef.parse(text) if text else None
        if ref is not None:
            refs[ref] = None
        elif text is not None:
            gather.wrong(member_path, expected, text)
    return tuple(refs)


def _read_requires(gather: Gather, path: str, value: Any) -> dict[str, str]:
    return dict(_read_ranges(gather, path, value, "a host such as cardcage", HOST))


def _read_dependencies(gather: Gather, path: str, value: Any) -> tuple[Dependency, ...]:
    ranges = _read_ranges(gather, path, value, "a plugin's name", HOST)
    return tuple(Dependency(name=name, range=text) for name, text in ranges.items())


def _read_ranges(gather: Gather, path: str, value: Any, expected: str, pattern: str) -> dict[str, str]:
    """Names with their version ranges, from a mapping or from a list of `name>=1.2`."""
    ranges: dict[str, str] = {}
    for name_path, name, range_path, range_text in _name_and_range(gather, path, value, expected):
        if not re.fullmatch(pattern, name) or len(name) > PLUGIN_NAME_CHARS_MAX:
            gather.wrong(name_path, f"{expected} in lower-case ASCII words joined by -, _ or .", name)
        elif name in ranges and ranges[name] != range_text:
            gather.fault(name_path, f"names {name} a second time, with another range")
        elif problem := range_fault(range_text):
            gather.fault(range_path, problem)
        else:
            ranges[name] = range_text
    return ranges


def _name_and_range(gather: Gather, path: str, value: Any, expected: str) -> list[tuple[str, str, str, str]]:
    if isinstance(value, dict):
        pairs: list[tuple[str, str, str, str]] = []
        for name, entry in cast(dict[str, Any], value).items():
            here = child_path(path, name)
            raw = "*" if entry is None else gather.raw_text(here, entry)
            if (text := gather.text(here, raw, "a version range such as >=1.2", most=200)) is not None:
                pairs.append((here, name, here, text.strip()))
        return pairs
    found: list[tuple[str, str, str, str]] = []
    for here, member in gather.members(
        path, value, f"a mapping of names to version ranges, or a list, each {expected}"
    ):
        text = gather.text(here, member, f"{expected}, with a version range if need be", most=300)
        match = _DEPENDENCY.fullmatch(text.strip()) if text else None
        if match:
            found.append((here, match["name"], here, (match["range"] or "*").strip()))
        elif text is not None:
            gather.wrong(here, f"{expected}, with a version range if need be, such as cost-store>=1.2", text)
    return found


def _read_limits(gather: Gather, path: str, value: Any) -> Limits:
    members = gather.mapping(path, value, f"a mapping of {', '.join(LIMIT_KEYS)}")
    gather.unknown_keys(path, members, LIMIT_KEYS)
    numbers: dict[str, Any] = {}
    for name, key in LIMIT_KEYS.items():
        if members.get(name) is None:
            continue
        number = key.read(members[name])
        if number is None:
            gather.wrong(child_path(path, name), key.expected, members[name])
        numbers[key.attribute] = number
    return Limits(**numbers)


def _read_config_schema(gather: Gather, path: str, value: Any) -> dict[str, Any] | None:
    schema, faults = normalise_config_schema(value, path)
    for fault in faults:
        gather.fault(fault.path, fault.message)
    return schema


def _read_isolation(gather: Gather, path: str, value: Any) -> Any:
    if value not in get_args(Isolation):
        hint = did_you_mean(value, get_args(Isolation)) if isinstance(value, str) else ""
        gather.fault(path, f"expected one of {', '.join(get_args(Isolation))}, found {describe(value)}{hint}")
    return value


def _read_encrypt(gather: Gather, path: str, value: Any) -> Any:
    if value != "always":
        gather.wrong(path, "always", value)
        return None
    return value


def _read_priority(gather: Gather, path: str, value: Any) -> int:
    return gather.integer(path, value, 1, 100, PRIORITY_DEFAULT)


def _read_concurrency(gather: Gather, path: str, value: Any) -> Concurrency:
    if not isinstance(value, dict):
        return Concurrency(threads=gather.integer(path, value, 1, CONCURRENCY_MAX, 1))
    members = cast(dict[str, Any], value)
    gather.unknown_keys(path, members, ("threads", "processes"))
    threads, processes = (
        gather.integer(child_path(path, name), members.get(name, 1), 1, CONCURRENCY_MAX, 1)
        for name in ("threads", "processes")
    )
    return Concurrency(threads=threads, processes=processes)


def _read_enabled(gather: Gather, path: str, value: Any) -> bool:
    return gather.flag(path, value, True)


_READERS: Final[Mapping[str, Callable[[Gather, str, Any], Any]]] = {
    "name": _read_name,
    "version": _read_version,
    "description": _read_description,
    "author": _read_line,
    "license": _read_line,
    "homepage": _read_web_url,
    "repository": _read_web_url,
    "keywords": _read_keywords,
    "type": _read_type,
    "provides": _read_provides,
    "requires": _read_requires,
    "dependencies": _read_dependencies,
    "permissions": read_permissions,
    "limits": _read_limits,
    "config_schema": _read_config_schema,
    "platforms": _read_platforms,
    "isolation": _read_isolation,
    "encrypt": _read_encrypt,
    "priority": _read_priority,
    "concurrency": _read_concurrency,
    "enabled": _read_enabled,
    "target": _read_word,
    "resource_types": _read_words,
    "channels": _read_words,
    "system": _read_word,
    "cloud": _read_word,
}
"""How each key is read; `entrypoint` and `runtime` are read together, `$schema` not at all."""


def manifest_faults(data: bytes | str, *, source: str = "plugin.yaml") -> tuple[Fault, ...]:
    """The faults of a manifest, none for a good one: for those who show them rather than stop at them."""
    try:
        parse_manifest(data, source=source)
    except InvalidDocument as invalid:
        return tuple(invalid.faults)
    return ()
