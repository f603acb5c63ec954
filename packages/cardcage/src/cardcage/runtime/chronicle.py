"""What is told of one instance: in its log, in the audit trail, and as events to whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from cardcage.audit import Action, Actor, AuditFields, Trail, failure_of, fields_of, reason_of
from cardcage.egress import EgressEvent, Verdict
from cardcage.foundation.errors import CardcageError
from cardcage.launch.runner import Exit, ExitReason
from cardcage.runtime.blueprint import Blueprint
from cardcage.runtime.deaths import hit_words, limit_of
from cardcage.runtime.live import Live
from cardcage.runtime.logbook import LogBook

_EGRESS_ACTS: Final = {
    Verdict.CONNECTED: Action.EGRESS_CONNECTED,
    Verdict.REFUSED: Action.EGRESS_REFUSED,
    Verdict.FAILED: Action.EGRESS_CLOSED,
    Verdict.CLOSED: Action.EGRESS_CLOSED,
}


class Chronicle:
    """Tells each thing that happens to one instance in all the places where it is looked for."""

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        logbook: LogBook,
        trail: Trail,
        publish: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._blueprint = blueprint
        self._logbook = logbook
        self._trail = trail
        self._publish = publish

    def _tell(self, name: str, **data: Any) -> None:
        instance = str(self._blueprint.instance)
        self._publish(name, {"plugin": self._blueprint.plugin, "instance": instance, **data})

    # its lifecycle ------------------------------------------------------------------------------------------------

    def loaded(self, live: Live, load_s: float) -> None:
        """Its process stands and has imported it."""
        plan = self._blueprint.spec.plan
        self._trail.note(
            Action.INSTANCE_LOADED,
            "its process was started and its code imported",
            pid=live.process.pid,
            isolation=plan.isolation,
            digest=self._blueprint.digest,
            layers=[f"{layer.name}={layer.status}" for layer in live.process.report.asked],
            grants=[str(grant) for grant in self._blueprint.grants],
        )
        self._tell("plugin.loaded", pid=live.process.pid, load_s=load_s)

    def not_loaded(self, error: CardcageError) -> None:
        """It could not be brought up."""
        self._logbook.note("error", error.message)
        action, allowed = failure_of(error)
        self._trail.note(action, reason_of(error), allowed=allowed, **fields_of(error))
        self._tell("plugin.failed", error=error.to_json())

    def started(self, pid: int) -> None:
        """It is active."""
        self._trail.note(Action.INSTANCE_STARTED, "it was asked to start", pid=pid)
        self._tell("plugin.started", pid=pid)

    def stopped(self) -> None:
        """It is inactive, and its process stays."""
        self._trail.note(Action.INSTANCE_STOPPED, "it was asked to stop")
        self._tell("plugin.stopped")

    def unloaded(self) -> None:
        """Its process was ended because somebody asked for it."""
        self._trail.note(Action.INSTANCE_UNLOADED, "it was asked to end")
        self._tell("plugin.unloaded")

    def step_failed(self, step: str, error: CardcageError) -> None:
        """On the way out it did something wrong, which changes nothing any more."""
        self._logbook.note("warning", f"{step} failed: {error.message}")

    def failed(self, error: CardcageError) -> None:
        """A command failed in the plugin, and its process was ended."""
        self._logbook.note("error", error.message)
        self._trail.note(Action.INSTANCE_FAILED, reason_of(error), **fields_of(error))
        self._tell("plugin.failed", error=error.to_json())

    # its deaths and what becomes of it ----------------------------------------------------------------------------

    def crashed(self, live: Live, exit_: Exit, error: CardcageError) -> None:
        """Its process ended and nobody had asked for it."""
        self._logbook.note("error", error.message)
        self._record_crash(live, exit_, error)
        limit = limit_of(exit_, self._blueprint.spec.plan.limits)
        self._tell("plugin.crashed", error=error.to_json(), exit_reason=exit_.reason.value, limit=limit)

    def _record_crash(self, live: Live, exit_: Exit, error: CardcageError) -> None:
        note = self._trail.note
        if error.code == "protocol_error":
            note(Action.MESSAGE_REFUSED, "it broke the protocol", allowed=False, code=error.code)
        limit = limit_of(exit_, self._blueprint.spec.plan.limits)
        if limit is not None:
            note(Action.LIMIT_HIT, exit_.detail, allowed=False, limit=limit["name"], limit_value=limit["value"])
        if exit_.reason is ExitReason.SYSTEM_CALL:
            note(Action.SYSTEM_CALL_REFUSED, exit_.detail, allowed=False)
        words = live.killed_for or f"its process ended without being asked to: {exit_.detail}"
        fields = AuditFields(code=error.code, exit_reason=exit_.reason.value, pid=live.process.pid)
        if exit_.code is not None:
            fields["exit_code"] = exit_.code
        if exit_.signal is not None:
            fields["signal"] = exit_.signal
        if limit is not None:
            fields["limit"], fields["limit_value"] = limit["name"], limit["value"]
        note(Action.INSTANCE_CRASHED, words, **fields)

    def restarted(self, reason: str, *, pid: int | None, restarts: int, delay_s: float) -> None:
        """It stands again after its process died."""
        self._logbook.note("info", f"restarted as process {pid}")
        self._trail.note(Action.INSTANCE_RESTARTED, reason, pid=pid or 0, restarts=restarts, delay_s=delay_s)
        self._tell("plugin.restarted", pid=pid, restarts=restarts)

    def gave_up(self, reason: str, restarts: int) -> None:
        """It is not restarted any more."""
        self._logbook.note("error", reason)
        self._trail.note(Action.INSTANCE_GAVE_UP, reason, restarts=restarts)
        self._tell("plugin.gave_up", reason=reason)

    # what it runs into --------------------------------------------------------------------------------------------

    def ran_into(self, limit: str, pid: int | None) -> None:
        """It ran into a limit and goes on."""
        sentence = hit_words(limit, self._blueprint.spec.plan.limits)
        self._logbook.note("warning", f"{self._blueprint.label} {sentence}")
        self._trail.note(Action.LIMIT_HIT, sentence, limit=limit, pid=pid or 0)
        self._tell("plugin.limit_hit", limit=limit, message=f"{self._blueprint.label} {sentence}")

    def connection(self, event: EgressEvent) -> None:
        """A connection of it was made, refused, or has ended."""
        if event.verdict in (Verdict.REFUSED, Verdict.FAILED):
            self._logbook.note("warning", event.sentence())
        self._trail.note(
            _EGRESS_ACTS[event.verdict],
            event.sentence(),
            allowed=event.verdict is not Verdict.REFUSED,
            actor=Actor.PLUGIN,
            endpoint=event.endpoint,
            address=event.address,
            bytes_out=event.bytes_up,
            bytes_in=event.bytes_down,
            count=event.suppressed,
        )
        if event.credential:
            what = f"the host added {event.credential} to what was sent to {event.endpoint}"
            self._trail.note(Action.CREDENTIAL_USED, what, secret=event.credential, endpoint=event.endpoint)
