"""`cardcage policy check|explain|show`: whether a policy is right, what it says of a plugin, and which one stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cardcage.cli.exits import ExitCode
from cardcage.cli.loop import run
from cardcage.cli.options import Config, Grant, Isolation, Json, PluginName, Policy, StateDir, read_config
from cardcage.cli.text import console, facts, print_json, safe, table

if TYPE_CHECKING:
    from cardcage.manager.planning import Asked
    from cardcage.manager.policy_source import PolicySource
    from cardcage.policy import Policy as PolicyData
    from cardcage.policy import PolicyDecision, Rule

PolicyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A policy file.")]


def check(file: PolicyFile, as_json: Json = False) -> None:
    """Check a policy file: its keys and values, its rules, and that nobody else can write it."""
    from cardcage.manager.policy_source import read_policy_file

    policy = read_policy_file(file.expanduser().absolute())
    if as_json:
        print_json({"valid": True, "path": str(file), **_policy_json(policy)})
        return
    out = console()
    rules, approvals = len(policy.rules), len(policy.approvals)
    out.print(f"{safe(file)} is a valid policy", style="bold green")
    out.print(facts({"level": policy.level, "default": policy.default, "rules": rules, "approvals": approvals or None}))


def show(policy: Policy = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Show the policy that stands: where it comes from, its level, and every rule in the order they are looked at."""
    source, read = run(_current(policy, state_dir))
    if as_json:
        print_json({"source": source.words, "origin": source.origin, **_policy_json(read)})
        return
    out = console()
    out.print(
        facts(
            {
                "policy": f"{safe(source.words)} (from the {source.origin})",
                "level": read.level,
                "default": read.default,
                "approvals": len(read.approvals) or None,
            }
        )
    )
    shown = table("rule", "where", "when", "then")
    for rule in read.all_rules:
        shown.add_row(safe(rule.name), safe(rule.position), _when_words(rule), _then_words(rule))
    out.print(shown)


async def _current(policy: str | None, state_dir: Path | None) -> tuple[PolicySource, PolicyData]:
    from cardcage.cli.host import open_host

    async with open_host(state_dir, policy=policy) as host:
        return host.manager.policy(), host.manager.policy().current()


def _policy_json(policy: PolicyData) -> dict[str, Any]:
    from cardcage.policy.spelling import policy_document, rule_document

    return {
        **policy_document(policy),
        "rules": [{**rule_document(rule), "position": rule.position} for rule in policy.all_rules],
    }


def _when_words(rule: Rule) -> str:
    from cardcage.policy.spelling import conditions_document

    when = _pairs(conditions_document(rule.when)) or "always"
    return when if rule.unless is None else f"{when}; unless {_pairs(conditions_document(rule.unless))}"


def _then_words(rule: Rule) -> str:
    from cardcage.policy.spelling import effects_document

    return _pairs(effects_document(rule.then))


def _pairs(document: dict[str, Any]) -> str:
    return "; ".join(f"{key}: {_value(value)}" for key, value in document.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return safe(", ".join(map(str, value)))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, dict):
        return safe(", ".join(f"{key} {each}" for key, each in value.items()))  # pyright: ignore[reportUnknownVariableType]
    return safe(value)


def explain(
    name: PluginName,
    policy: Policy = None,
    config: Config = None,
    grant: Grant = None,
    isolation: Isolation = "process",
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Say whether a plugin would start, and by which rule or grant. Nothing is started. Status 3 where it would not."""
    from cardcage.cli.host import Target

    target = Target.parse(name)
    settings: dict[str, Any] = {
        "config": read_config(config),
        "grants": grant,
        "isolation": isolation,
        "policy": policy,
    }
    decision, asked = run(_judge(target, state_dir, settings))
    starts = decision.allowed and not asked.required_refused
    if as_json:
        print_json(
            {
                "plugin": target.instance,
                "starts": starts,
                "permissions": [
                    {
                        "permission": str(request.permission),
                        "optional": request.optional,
                        "allowed": answer.allowed,
                        "reason": answer.reason,
                    }
                    for request, answer in asked.decisions
                ],
                "policy": decision.to_json(),
            }
        )
    else:
        _print_decision(target.instance, starts, decision, asked)
    raise typer.Exit(ExitCode.OK if starts else ExitCode.REFUSED)


async def _judge(target: Any, state_dir: Path | None, settings: dict[str, Any]) -> tuple[PolicyDecision, Asked]:
    from cardcage.cli.host import installed, open_host

    async with open_host(state_dir, target=target, **settings) as host:
        installed(host.store, target)
        return host.manager.judge(target.instance), host.manager.permissions(target.instance)


def _print_decision(instance: str, starts: bool, decision: PolicyDecision, asked: Asked) -> None:
    from cardcage.policy import bounds

    out = console()
    out.print(
        f"{safe(instance)} would {'start' if starts else 'NOT start'}", style="bold green" if starts else "bold red"
    )
    for denial in decision.denials:
        out.print(f"  {safe(denial.reason)}", style="red")
        if denial.hint:
            out.print(f"  hint: {safe(denial.hint)}")
    limits = bounds.given(decision.limits)
    out.print(
        facts(
            {
                "policy": f"level {decision.level}" + (f", {decision.source}" if decision.source else ""),
                "isolation": decision.isolation,
                "limits": " ".join(f"{name}={bounds.spelled(name, value)}" for name, value in limits.items()) or None,
                "encryption": "always" if decision.encrypt else "in containers and virtual machines",
                "fallback": "accepted" if decision.fallback else "refused",
                "floor": " ".join(decision.floor),
                "and where possible": " ".join(decision.floor_where_possible) or None,
            }
        )
    )
    if asked.decisions:
        permissions = table("permission", "answer", "why")
        for request, answer in asked.decisions:
            word = "granted" if answer.allowed else "left out" if request.optional else "refused"
            permissions.add_row(safe(request.permission), word, safe(answer.reason))
        out.print(permissions)
    rules = table("rule", "where", "what came of it")
    for each in decision.applied:
        rules.add_row(safe(each.rule), safe(each.position), safe("; ".join(each.effects)))
    out.print(rules)
