"""One act or decision, as those who decide hand it over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cardcage.audit.actions import Action, Actor


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to whom, whether it was allowed, and why.

    `allowed` is None for what is no decision, such as a crash. `reason` is a sentence of the host's own, never a text
    that a plugin or a configuration gave. `at_s` (seconds since 1970) is left out by those who have no clock: the log
    puts it in. `fields` may have the names of `AuditFields`; whatever else is there is dropped when it is written.
    """

    action: Action
    reason: str
    actor: Actor = Actor.HOST
    allowed: bool | None = None
    plugin: str = ""
    version: str = ""
    instance: str = ""
    at_s: float | None = None
    fields: Mapping[str, Any] = {}
