"""From the bytes of a policy file to a `Policy`, or to every fault in it at once.

The text is read by the same reader as manifests: YAML without aliases and tags, duplicate keys refused, size and depth
bounded. Unlike there, a key that nobody knows is always a fault: one that begins with `x-`, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal, cast, get_args

from cardcage.foundation.errors import Fault, InvalidDocument, Misuse
from cardcage.manifest import Limits, Runtime
from cardcage.manifest.document import FAULTS_MAX, child_path, read_document
from cardcage.manifest.gather import Gather, did_you_mean
from cardcage.manifest.limits import LIMIT_KEYS
from cardcage.permissions import Permission, PermissionKind
from cardcage.permissions.paths import canonical
from cardcage.policy.model import (
    ISOLATIONS,
    Approval,
    Conditions,
    Effects,
    Fallback,
    Isolation,
    Level,
    LimitCondition,
    Policy,
    Rule,
    Unconfined,
)

RULES_MAX: Final = 500
MEMBERS_MAX: Final = 200
"""Values under one key, and approvals: every start holds each of them against the plugin."""

PATTERN: Final = r"[^\[\]\x00-\x1f\x7f]{1,200}"
"""A text in which `*` stands for any characters and `?` for one."""
LAYER: Final = r"[a-z][a-z0-9_]{0,63}"
DIGEST: Final = r"[0-9a-f]{64}"
RULE_NAME: Final = r'[^"\x00-\x1f\x7f]{1,100}'
_SIGNED: Final = re.compile(r"(>=|<=|==|>|<) ?(\S.*)")

TOP_KEYS: Final = ("level", "default", "rules", "approvals")
RULE_KEYS: Final = ("name", "reason", "when", "unless", "then")
EXPECTED_LIMIT: Final = 'a comparison such as "> 1GiB", or none'


def parse_policy(data: bytes | str, *, source: str = "policy.yaml", layers: Collection[str] | None = None) -> Policy:
    """The policy in `data`; JSON where `source` ends in `.json`. With `layers`, a floor may name no others.

    Raises `InvalidDocument(code="policy_invalid")`, and nothing else, with every fault: its path, what was expected and
    what was found.
    """
    document, syntax_faults = read_document(data, "json" if source.endswith(".json") else "yaml")
    faults = list(syntax_faults)
    policy = None
    if document is not None:
        reader = _Reader(Gather(document), source, layers)
        policy = reader.policy(document.tree)
        refused = {fault.path for fault in faults}
        faults += (fault for fault in reader.gather.faults if fault.path not in refused)
    if faults or policy is None:
        raise InvalidDocument(f"policy {source}", faults[:FAULTS_MAX], code="policy_invalid", source=source)
    return policy


def policy_faults(data: bytes | str, *, source: str = "policy.yaml") -> tuple[Fault, ...]:
    """The faults of a policy, none for a good one."""
    try:
        parse_policy(data, source=source)
    except InvalidDocument as invalid:
        return tuple(invalid.faults)
    return ()


def level_named(word: str) -> Level:
    """The level of that name. Raises `Misuse` where there is none."""
    try:
        return Level(word)
    except ValueError:
        raise Misuse(
            f"expected a level of policy ({', '.join(Level)}), found {word!r:.80}{did_you_mean(word, Level)}",
            code="policy_level_unknown",
        ) from None


class _Reader:
    """Reads one document; faults go to `gather`."""

    def __init__(self, gather: Gather, source: str, layers: Collection[str] | None) -> None:
        self.gather = gather
        self._source = source
        self._layers = layers

    def policy(self, tree: Any) -> Policy | None:
        if not isinstance(tree, dict):
            self.gather.wrong("", f"a mapping of {', '.join(TOP_KEYS)}", tree)
            return None
        members = self._known("", cast(dict[str, Any], tree), TOP_KEYS)
        return Policy(
            level=Level(self._word("level", members.get("level"), tuple(Level)) or Level.STANDARD),
            default=cast(
                "Literal['allow', 'deny']", self._word("default", members.get("default"), ("allow", "deny")) or "allow"
            ),
            rules=self._rules(members.get("rules")),
            approvals=self._approvals(members.get("approvals")),
            source=self._source,
        )

    # rules ----------------------------------------------------------------------------------------------------------

    def _rules(self, value: Any) -> tuple[Rule, ...]:
        rules: list[Rule] = []
        names: dict[str, str] = {}
        for path, entry in self._list("rules", value, "a list of rules", most=RULES_MAX):
            rule = self._rule(path, entry)
            if rule is None:
                continue
            if rule.name in names:
                self.gather.fault(child_path(path, "name"), f'the rule {names[rule.name]} is called "{rule.name}", too')
            names.setdefault(rule.name, path)
            rules.append(rule)
        return tuple(rules)

    def _rule(self, path: str, entry: Any) -> Rule | None:
        if not isinstance(entry, dict):
            self.gather.wrong(path, f"a mapping of {', '.join(RULE_KEYS)}", entry)
            return None
        members = self._known(path, cast(dict[str, Any], entry), RULE_KEYS)
        then_path = child_path(path, "then")
        then = self._effects(then_path, members.get("then"))
        when = self._conditions(child_path(path, "when"), members.get("when", {}))
        unless = members.get("unless")
        rule = Rule(
            name=self._text(child_path(path, "name"), members.get("name"), "a name", RULE_NAME) or path,
            position=self._position(path),
            reason=self._text(child_path(path, "reason"), members.get("reason"), "a sentence", r"[^\n\r\t]+") or "",
            when=when,
            unless=None if unless is None else self._conditions(child_path(path, "unless"), unless),
            then=then,
        )
        self._check(path, rule)
        return rule

    def _position(self, path: str) -> str:
        line = self.gather.document.lines.get(path)
        return f"{self._source}, line {line}" if line else f"{self._source}, {path}"

    def _check(self, path: str, rule: Rule) -> None:
        """What no single value shows: rules that would trust a claim, or mean two things at once."""
        loosens, speaks = rule.then.loosens, rule.when.about_permissions
        claim = "is only what the manifest claims, so a rule that gives something by it needs verified: true"
        if loosens and rule.when.publisher and not rule.when.verified:
            self.gather.fault(child_path(path, "when.publisher"), f"the publisher {claim}")
        if rule.unless is not None:
            speaks = speaks or rule.unless.about_permissions
            if rule.unless.publisher and (loosens or not rule.unless.verified):
                where = child_path(path, "unless.publisher")
                words = "no exception from a rule that gives something" if loosens else "an exception only if verified"
                self.gather.fault(where, f"the publisher is only what the manifest claims: {words}")
        if speaks and loosens and rule.then.tightens:
            self.gather.fault(
                child_path(path, "then"),
                "a rule about permissions either gives or takes: what it takes is all that overlaps with its pattern, "
                "what it gives only what the pattern covers; make two rules of it",
            )
        if rule.then.allow and rule.then.deny:
            self.gather.fault(child_path(path, "then"), "expected one of allow and deny, found both")

    # conditions -----------------------------------------------------------------------------------------------------

    def _conditions(self, path: str, value: Any) -> Conditions:
        readers: Mapping[str, Callable[[str, Any], Any]] = {
            **dict.fromkeys(("plugin", "publisher", "type", "provides", "environment", "label"), self._patterns),
            "verified": lambda here, entry: self.gather.flag(here, entry, False),
            "source": self._folders,
            "runtime": lambda here, entry: tuple(map(Runtime, self._words(here, entry, tuple(Runtime)))),
            "isolation": lambda here, entry: self._words(here, entry, ISOLATIONS),
            "permission": self._permissions,
            "broad": lambda here, entry: tuple(map(PermissionKind, self._words(here, entry, BROAD_WORDS))),
            "limits": self._comparisons,
        }
        members = self._known(path, self.gather.mapping(path, value, "a mapping of conditions"), readers)
        read: dict[str, Any] = {key: readers[key](child_path(path, key), entry) for key, entry in members.items()}
        return Conditions(**read)

    def _patterns(self, path: str, value: Any) -> tuple[str, ...]:
        expected = "a text, in which * stands for any characters"
        return self._each(path, value, expected, lambda here, each: self.gather.text(here, each, expected, PATTERN))

    def _folders(self, path: str, value: Any) -> tuple[str, ...]:
        return self._each(path, value, "the path of a folder", self._folder)

    def _folder(self, path: str, value: Any) -> str | None:
        text = self.gather.text(path, value, "the absolute path of a folder", most=4096)
        try:
            return None if text is None else canonical(text)
        except ValueError as error:
            self.gather.fault(path, str(error))
            return None

    def _permissions(self, path: str, value: Any) -> tuple[Permission, ...]:
        return self._each(path, value, "a permission such as network:*.example.com:443", self._permission)

    def _permission(self, path: str, value: Any) -> Permission | None:
        text = self.gather.text(path, value, "a permission such as network:*.example.com:443", most=4200)
        if text is None:
            return None
        try:
            permission = Permission.parse(text)
        except Misuse as error:
            self.gather.fault(path, error.message)
            return None
        if permission.has_placeholders:
            self.gather.fault(path, f"expected a permission without placeholders, found {permission}")
            return None
        return permission

    def _comparisons(self, path: str, value: Any) -> tuple[LimitCondition, ...]:
        members = self._known(
            path, self.gather.mapping(path, value, f"a mapping of {', '.join(LIMIT_KEYS)}"), LIMIT_KEYS
        )
        found = (self._comparison(child_path(path, name), name, entry) for name, entry in members.items())
        return tuple(each for each in found if each is not None)

    def _comparison(self, path: str, name: str, value: Any) -> LimitCondition | None:
        if value == "none":
            return LimitCondition(limit=name, sign="none", text="none")
        match = _SIGNED.fullmatch(value) if isinstance(value, str) else None
        number = None if match is None else self._amount(name, match[2])
        if match is None or number is None:
            self.gather.wrong(path, f"{EXPECTED_LIMIT}, where the amount is {LIMIT_KEYS[name].expected}", value)
            return None
        return LimitCondition(limit=name, sign=cast(Any, match[1]), number=number, text=value)

    def _amount(self, name: str, text: str) -> float | None:
        plain = re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,6})?", text)
        if plain is None:
            return LIMIT_KEYS[name].read(text)
        return LIMIT_KEYS[name].read(float(text) if plain[1] else int(text))

    # effects --------------------------------------------------------------------------------------------------------

    def _effects(self, path: str, value: Any) -> Effects:
        readers: Mapping[str, Callable[[str, Any], Any]] = {
            "deny": self._yes,
            "allow": self._yes,
            "grant": self._permissions,
            "isolation": lambda here, entry: self._word(here, entry, get_args(Isolation)),
            "floor": self._floor,
            "floor_where_possible": self._floor,
            "caps": self._limits,
            "defaults": self._limits,
            "bounded": self._bounded,
            "encrypt": lambda here, entry: self._word(here, entry, ("always",)) == "always",
            "fallback": lambda here, entry: self._word(here, entry, get_args(Fallback)),
            "unconfined": lambda here, entry: self._word(here, entry, get_args(Unconfined)),
            "approval": self._required,
            "warn": lambda here, entry: self.gather.text(here, entry, "a sentence", r"[^\n\r\t]+") or "",
        }
        if value is None or value == {}:
            self.gather.wrong(path, f"at least one of {', '.join(readers)}", value)
            return Effects()
        members = self._known(path, self.gather.mapping(path, value, f"a mapping of {', '.join(readers)}"), readers)
        read: dict[str, Any] = {key: readers[key](child_path(path, key), entry) for key, entry in members.items()}
        return Effects(**read)

    def _yes(self, path: str, value: Any) -> bool:
        """True: `deny: false` would read as if it undid another rule's denial, which nothing can."""
        if value is not True:
            self.gather.wrong(path, "true, or not this key at all", value)
        return value is True

    def _required(self, path: str, value: Any) -> bool:
        return self._word(path, value, ("required",)) == "required"

    def _floor(self, path: str, value: Any) -> tuple[str, ...]:
        return self._each(path, value, "the name of a layer", self._layer)

    def _layer(self, path: str, value: Any) -> str | None:
        name = self.gather.text(path, value, "the name of a layer such as landlock_files", LAYER)
        if name is not None and self._layers is not None and name not in self._layers:
            known = ", ".join(sorted(self._layers))
            self.gather.fault(path, f'no layer is called "{name}"{did_you_mean(name, self._layers)} (layers: {known})')
            return None
        return name

    def _bounded(self, path: str, value: Any) -> tuple[str, ...]:
        if value == "all":
            return tuple(LIMIT_KEYS)
        return self._words(path, value, tuple(LIMIT_KEYS))

    def _limits(self, path: str, value: Any) -> Limits:
        members = self._known(
            path, self.gather.mapping(path, value, f"a mapping of {', '.join(LIMIT_KEYS)}"), LIMIT_KEYS
        )
        numbers: dict[str, Any] = {}
        for name, entry in members.items():
            key = LIMIT_KEYS[name]
            number = key.read(entry)
            if number is None:
                self.gather.wrong(child_path(path, name), key.expected, entry)
            numbers[key.attribute] = number
        return Limits(**numbers)

    # approvals ------------------------------------------------------------------------------------------------------

    def _approvals(self, value: Any) -> tuple[Approval, ...]:
        found: list[Approval] = []
        for path, entry in self._list("approvals", value, "a list of approvals", most=MEMBERS_MAX):
            members = self._known(
                path, self.gather.mapping(path, entry, "a mapping of plugin and digest"), ("plugin", "digest")
            )
            plugin = self.gather.text(child_path(path, "plugin"), members.get("plugin"), "the name of a plugin")
            digest = self.gather.text(
                child_path(path, "digest"), members.get("digest"), "a digest of 64 hexadecimal digits", DIGEST
            )
            if plugin is not None and digest is not None:
                found.append(Approval(plugin=plugin, digest=digest))
        return tuple(found)

    # values ---------------------------------------------------------------------------------------------------------

    def _known(self, path: str, members: Mapping[str, Any], known: Collection[str]) -> Mapping[str, Any]:
        """The members that are known and have a value; a key without one says nothing, and is a fault as well."""
        kept: dict[str, Any] = {}
        for key, value in members.items():
            here = child_path(path, key)
            if key not in known:
                hint = did_you_mean(key, known) or f" (keys: {', '.join(known)})"
                self.gather.fault(here, f"no such key{hint}")
            elif value is None:
                self.gather.fault(here, "expected a value, found nothing")
            else:
                kept[key] = value
        return kept

    def _list(self, path: str, value: Any, expected: str, *, most: int) -> list[tuple[str, Any]]:
        if value is None:
            return []
        if not isinstance(value, list):
            self.gather.wrong(path, expected, value)
            return []
        return self._members(path, cast(list[Any], value), most)

    def _members(self, path: str, values: list[Any], most: int) -> list[tuple[str, Any]]:
        if len(values) > most:
            self.gather.fault(path, f"expected at most {most}, found {len(values)}")
        return [(child_path(path, index), entry) for index, entry in enumerate(values[:most])]

    def _each(self, path: str, value: Any, expected: str, read: Callable[[str, Any], Any]) -> tuple[Any, ...]:
        """A list, or one value that stands for a list of itself. An empty list would hold of nothing, or of all."""
        entries = (
            self._members(path, cast(list[Any], value), MEMBERS_MAX) if isinstance(value, list) else [(path, value)]
        )
        if not entries:
            self.gather.fault(path, f"expected {expected}, found an empty list")
        found = (read(here, entry) for here, entry in entries)
        return tuple(dict.fromkeys(each for each in found if each is not None))

    def _words(self, path: str, value: Any, known: Collection[str]) -> tuple[str, ...]:
        return self._each(path, value, f"one of {', '.join(known)}", lambda here, each: self._word(here, each, known))

    def _word(self, path: str, value: Any, known: Collection[str]) -> str | None:
        if value is None:
            return None
        if isinstance(value, str) and value in list(map(str, known)):
            return value
        hint = did_you_mean(value, map(str, known)) if isinstance(value, str) else ""
        self.gather.wrong(
            path, f"{'one of ' if len(known) > 1 else ''}{', '.join(known)}{hint and f' ({hint[2:]})'}", value
        )
        return None

    def _text(self, path: str, value: Any, expected: str, pattern: str) -> str | None:
        return None if value is None else self.gather.text(path, value, expected, pattern)


BROAD_WORDS: Final = tuple(kind.value for kind in PermissionKind if kind not in ("secret", "capability"))
"""The kinds of which a permission can be broad."""
