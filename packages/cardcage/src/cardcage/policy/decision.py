"""The judgement of a policy over one instance: pure, with every rule that applied and why.

The order in which rules are looked at is that of the level and then that of the file, and it matters for nothing but
defaults and how the result reads:

1. A rule that denies wins over any that allows or grants. Where it speaks of permissions, it takes those away: the
   instance starts without an optional one, and not at all without one that it needs.
2. Of several caps the lowest holds, of several isolations the strongest, of floors all layers together. A default of a
   later rule replaces that of an earlier one, and the host's own.
3. `never` wins over whatever allows the fallback or `unconfined`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cardcage.manifest import Limits
from cardcage.permissions import Grants, Permission
from cardcage.policy import bounds
from cardcage.policy.matching import Matched, match
from cardcage.policy.model import ISOLATIONS, NO_LIMITS, Effects, Level, Policy, Rule
from cardcage.policy.subject import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A rule that applied, and what came of it, in words."""

    rule: str
    position: str
    effects: tuple[str, ...]
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """The rule as plain data."""
        return {"rule": self.rule, "position": self.position, "effects": list(self.effects), "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Why an instance may not start, and by which rule; `permission` where it is about one that it needs."""

    reason: str
    rule: str
    position: str
    code: str = "policy_denied"
    permission: str = ""
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        """The denial as plain data; empty texts are left out."""
        document = {"reason": self.reason, "rule": self.rule, "position": self.position, "code": self.code}
        more = {"permission": self.permission, "hint": self.hint}
        return document | {name: text for name, text in more.items() if text}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDecision:
    """What a policy says of one instance.

    `isolation` is the wall it gets, at least that which was chosen; `limits` are those that hold; `refused` are the
    permissions that it does not get, each with the reason, whatever was granted; `grants` are the policy's own.
    """

    level: Level
    denials: tuple[Denial, ...]
    isolation: str
    floor: tuple[str, ...]
    floor_where_possible: tuple[str, ...]
    own_floor: tuple[str, ...]
    """Of the floor what the operator's own rules ask for: no fallback does without it."""
    limits: Limits
    refused: Mapping[Permission, str]
    grants: Grants
    encrypt: bool
    fallback: bool
    warnings: tuple[str, ...]
    applied: tuple[Applied, ...]
    source: str = ""

    @property
    def allowed(self) -> bool:
        """Whether it may start, as far as the policy goes: grants and the machine have their say after this."""
        return not self.denials

    @property
    def reason(self) -> str:
        """The denials as one sentence, or that there are none."""
        if not self.denials:
            return f"no rule of the policy ({self.source or f'level {self.level}'}) is against it"
        return "; ".join(denial.reason for denial in self.denials)

    def to_json(self) -> dict[str, Any]:
        """The decision as plain data."""
        return {
            "allowed": self.allowed,
            "reason": self.reason,
            "level": self.level.value,
            "source": self.source or None,
            "denials": [denial.to_json() for denial in self.denials],
            "isolation": self.isolation,
            "floor": list(self.floor),
            "floor_where_possible": list(self.floor_where_possible),
            "limits": bounds.given(self.limits),
            "refused": {str(permission): why for permission, why in sorted(self.refused.items())},
            "grants": [str(grant) for grant in self.grants],
            "encrypt": "always" if self.encrypt else "across hosts",
            "fallback": self.fallback,
            "warnings": list(self.warnings),
            "applied": [each.to_json() for each in self.applied],
        }


Matching = tuple[Rule, Matched]


def judge(policy: Policy, subject: Subject) -> PolicyDecision:
    """What the policy says of the instance."""
    applying = [(rule, found) for rule in policy.all_rules if (found := match(rule, subject)) is not None]
    refused = _refused(applying)
    limits, defaulted = _limits(policy, applying, subject)
    isolation, isolation_denials = _isolation(applying, subject)
    return PolicyDecision(
        level=policy.level,
        source=policy.source,
        denials=(
            *_denied(applying, subject),
            *_not_allowed(policy, applying, subject),
            *_needed(refused, subject),
            *isolation_denials,
            *_unbounded(applying, subject, limits),
            *_unapproved(policy, applying, subject),
        ),
        isolation=isolation,
        floor=_together(rule.then.floor for rule, _ in applying),
        floor_where_possible=_together(rule.then.floor_where_possible for rule, _ in applying),
        own_floor=_together(rule.then.floor for rule, _ in applying if rule in policy.rules),
        limits=limits,
        refused={permission: reason for permission, (_, reason) in refused.items()},
        grants=Grants(frozenset(grant for rule, _ in applying for grant in rule.then.grant)),
        encrypt=any(rule.then.encrypt for rule, _ in applying),
        fallback=_fallback(applying),
        warnings=tuple(dict.fromkeys(rule.then.warn for rule, _ in applying if rule.then.warn)),
        applied=tuple(_applied(rule, found, subject, defaulted) for rule, found in applying),
    )


def _sentence(rule: Rule, what: str) -> str:
    return f"{rule.label} {what}" + (f": {rule.reason}" if rule.reason else "")


def _denial(rule: Rule, what: str, **more: str) -> Denial:
    return Denial(reason=_sentence(rule, what), rule=rule.name, position=rule.position, **more)


def about_permissions(rule: Rule) -> bool:
    """Whether a rule's denial is of permissions rather than of the whole plugin."""
    return rule.when.about_permissions or (rule.unless is not None and rule.unless.about_permissions)


def _denied(applying: list[Matching], subject: Subject) -> list[Denial]:
    return [
        _denial(rule, f"denies {subject.words}")
        for rule, _ in applying
        if rule.then.deny and not about_permissions(rule)
    ]


def _not_allowed(policy: Policy, applying: list[Matching], subject: Subject) -> list[Denial]:
    if policy.default == "allow" or any(rule.then.allow for rule, _ in applying):
        return []
    where = policy.source or f"level {policy.level}"
    reason = f"no rule allows {subject.words}, and the default is to deny ({where})"
    hint = f"add a rule: {{when: {{plugin: {subject.plugin}}}, then: {{allow: true}}}}"
    return [Denial(reason=reason, rule="default", position=where, hint=hint)]


def _refused(applying: list[Matching]) -> dict[Permission, tuple[Rule, str]]:
    """The permissions that are taken away, each with the first rule that does so."""
    refused: dict[Permission, tuple[Rule, str]] = {}
    for rule, found in applying:
        if rule.then.deny and about_permissions(rule):
            for request in found:
                what = f"denies {request.permission.describe()}"
                refused.setdefault(request.permission, (rule, _sentence(rule, what)))
    return refused


def _needed(refused: Mapping[Permission, tuple[Rule, str]], subject: Subject) -> list[Denial]:
    needed = [request.permission for request in subject.requests if not request.optional]
    return [
        Denial(
            reason=refused[permission][1],
            rule=refused[permission][0].name,
            position=refused[permission][0].position,
            permission=str(permission),
        )
        for permission in dict.fromkeys(needed)
        if permission in refused
    ]


def _isolation(applying: list[Matching], subject: Subject) -> tuple[str, list[Denial]]:
    """The wall that it gets, and what is against it."""
    chosen = subject.isolation
    asking = [(rule, rule.then.isolation) for rule, _ in applying if rule.then.isolation is not None]
    if chosen != "unconfined":
        return max([chosen, *(wanted for _, wanted in asking)], key=_strength), []
    denials = [_denial(rule, f"asks for at least {wanted} isolation, found unconfined") for rule, wanted in asking]
    said = [(rule, rule.then.unconfined) for rule, _ in applying if rule.then.unconfined is not None]
    hint = "say it of this plugin alone, or let a rule say `unconfined: any`"
    if never := [rule for rule, word in said if word == "never"]:
        denials.append(_denial(never[0], f"never lets {subject.words} run unconfined", code="unconfined_refused"))
    elif not any(word == "any" or (word == "named" and subject.unconfined_named) for _, word in said):
        reason = f"the policy lets {subject.words} run unconfined only where the operator says so of it by name"
        found = next((rule for rule, word in said if word == "named"), None)
        denials.append(
            _denial(
                found,
                f"lets plugins run unconfined only by name, and {subject.words} was not named",
                code="unconfined_refused",
                hint=hint,
            )
            if found is not None
            else Denial(reason=reason, rule="", position="", code="unconfined_refused", hint=hint)
        )
    return chosen, denials


def _strength(isolation: str) -> int:
    return ISOLATIONS.index(isolation) if isolation in ISOLATIONS else 0


def _fallback(applying: list[Matching]) -> bool:
    said = {rule.then.fallback for rule, _ in applying}
    return "allow" in said and "never" not in said


def _limits(policy: Policy, applying: list[Matching], subject: Subject) -> tuple[Limits, Limits]:
    """The limits that hold, and the defaults that were used.

    A level's default never raises that of the host; a rule of the operator's own replaces both.
    """
    defaults = subject.default_limits
    for rule, _ in applying:
        own = rule in policy.rules
        defaults = bounds.filled(rule.then.defaults, defaults) if own else bounds.least(defaults, rule.then.defaults)
    limits = bounds.filled(subject.limits, defaults)
    for rule, _ in applying:
        limits = bounds.least(limits, rule.then.caps)
    return limits, defaults


def _unbounded(applying: list[Matching], subject: Subject, limits: Limits) -> list[Denial]:
    return [
        _denial(
            rule,
            f"asks for a bound of {', '.join(names)}, and {subject.words} has none",
            hint="name them under limits: in the manifest, or under defaults: in a rule",
        )
        for rule, _ in applying
        if (names := bounds.unbounded(limits, rule.then.bounded))
    ]


def _unapproved(policy: Policy, applying: list[Matching], subject: Subject) -> list[Denial]:
    if any(each.plugin == subject.plugin and each.digest == subject.digest for each in policy.approvals):
        return []
    hint = f"approve these bytes: approvals: [{{plugin: {subject.plugin}, digest: {subject.digest}}}]"
    return [
        _denial(rule, f"asks for an approval of {subject.words}", code="approval_needed", hint=hint)
        for rule, _ in applying
        if rule.then.approval
    ]


def _together(floors: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for floor in floors for name in floor))


@dataclass(slots=True)
class _Words:
    """What came of one rule, sentence by sentence."""

    told: list[str] = field(default_factory=list[str])

    def say(self, when: object, sentence: str) -> None:
        if when:
            self.told.append(sentence)


def _applied(rule: Rule, found: Matched, subject: Subject, defaults: Limits) -> Applied:
    then, words = rule.then, _Words()
    asked = ", ".join(str(request.permission) for request in found)
    words.say(then.deny, f"denies {asked}" if about_permissions(rule) else "denies the start")
    words.say(then.allow, "allows the start")
    words.say(then.grant, f"grants {', '.join(map(str, then.grant))}")
    words.say(then.isolation, f"isolation at least {then.isolation}")
    words.say(then.floor, f"floor: {', '.join(then.floor)}")
    words.say(then.floor_where_possible, f"floor where this machine has it: {', '.join(then.floor_where_possible)}")
    _say_limits(words, then, subject, defaults)
    words.say(then.encrypt, "encrypts every connection to the plugin")
    words.say(then.fallback, f"fallback: {then.fallback}")
    words.say(then.unconfined, f"unconfined: {then.unconfined}")
    words.say(then.approval, "asks for an approval")
    words.say(then.warn, f"warns: {then.warn}")
    return Applied(rule=rule.name, position=rule.position, effects=tuple(words.told), reason=rule.reason)


def _say_limits(words: _Words, then: Effects, subject: Subject, defaults: Limits) -> None:
    asked, used = bounds.given(subject.limits), bounds.given(defaults)
    own = bounds.given(then.defaults)
    words.say(then.caps != NO_LIMITS, f"at most {_amounts(bounds.given(then.caps))}")
    words.say(
        own,
        f"unless asked for: {_amounts({name: own[name] for name in own if name not in asked})}"
        if any(name not in asked and used.get(name) == own[name] for name in own)
        else "defaults, none needed",
    )
    words.say(then.bounded, f"a bound for {', '.join(then.bounded)}")


def _amounts(limits: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {bounds.spelled(name, value)}" for name, value in limits.items())
