"""Whether the conditions of a rule hold of an instance, and of which of the permissions that it asks for."""

from __future__ import annotations

from fnmatch import fnmatchcase

from cardcage.manifest.limits import LIMIT_KEYS
from cardcage.permissions import PermissionRequest
from cardcage.policy.model import Conditions, Rule
from cardcage.policy.subject import Subject

Matched = tuple[PermissionRequest, ...]


def match(rule: Rule, subject: Subject) -> Matched | None:
    """The requests that the rule speaks of (all, where it names none), or None where it does not apply."""
    loosely = not rule.then.loosens
    matched = _matched(rule.when, subject, loosely=loosely)
    if matched is None or rule.unless is None:
        return matched
    # An exception is read the other way round, so that it, too, errs towards less.
    excepted = _matched(rule.unless, subject, loosely=not loosely)
    if excepted is None:
        return matched
    if not rule.unless.about_permissions:
        return None
    left = tuple(request for request in matched if request not in excepted)
    return left or None


def _matched(conditions: Conditions, subject: Subject, *, loosely: bool) -> Matched | None:
    if not _holds_of_plugin(conditions, subject):
        return None
    if not conditions.about_permissions:
        return subject.requests
    found = tuple(request for request in subject.requests if _speaks_of(conditions, request, loosely=loosely))
    return found or None


def _speaks_of(conditions: Conditions, request: PermissionRequest, *, loosely: bool) -> bool:
    """Whether a permission is meant.

    What takes something away (`loosely`) means everything that overlaps with its pattern: `read:/` holds /etc, too.
    What gives something means only what its pattern covers.
    """
    asked = request.permission
    if asked.is_broad and asked.kind in conditions.broad:
        return True
    return any(pattern.covers(asked) or (loosely and pattern.overlaps(asked)) for pattern in conditions.permission)


def _holds_of_plugin(conditions: Conditions, subject: Subject) -> bool:
    limits = subject.limits
    return (
        _any_like(conditions.plugin, subject.plugin)
        and _any_like(conditions.publisher, subject.publisher, folded=True)
        and conditions.verified in (None, subject.verified)
        and _lies_in(conditions.source, subject.source)
        and _any_like(conditions.type, subject.type)
        and (not conditions.provides or any(_any_like(conditions.provides, each) for each in subject.provides))
        and (not conditions.runtime or subject.runtime in conditions.runtime)
        and (not conditions.isolation or subject.isolation in conditions.isolation)
        and _any_like(conditions.environment, subject.environment)
        and _any_like(conditions.label, subject.label)
        and all(each.holds(getattr(limits, LIMIT_KEYS[each.limit].attribute)) for each in conditions.limits)
    )


def _any_like(patterns: tuple[str, ...], text: str, *, folded: bool = False) -> bool:
    if not patterns:
        return True
    if folded:
        return any(fnmatchcase(text.casefold(), pattern.casefold()) for pattern in patterns)
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _lies_in(folders: tuple[str, ...], path: str) -> bool:
    if not folders:
        return True
    inside = (path.rstrip("/") or "/") + "/"
    return any(inside.startswith(folder.rstrip("/") + "/") for folder in folders)
