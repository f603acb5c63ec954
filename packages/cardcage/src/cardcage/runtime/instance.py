"""An instance over its whole life: the lifecycle commands, the calls, and the recovery when its process dies.

Commands on one instance take turns under one lock. Which step may follow which is `supervise`'s table; whether and when
to restart is `supervise.next_step`, which `Recovery` follows; why a process ended is found in `cause`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from cardcage.audit import NO_TRAIL, Trail
from cardcage.egress import EgressCount, EgressEvent, Gateway
from cardcage.foundation.clock import Clock
from cardcage.foundation.errors import CardcageError, Misuse, PluginFault, Unavailable
from cardcage.foundation.limits import LOG_LINES_PER_S
from cardcage.launch.runner import Exit, Runner
from cardcage.permissions.credentials import SecretSource
from cardcage.runtime.blueprint import Blueprint
from cardcage.runtime.cause import await_end, crash_of, kill_if_hung, with_cause
from cardcage.runtime.chronicle import Chronicle
from cardcage.runtime.description import PluginDescription
from cardcage.runtime.health import InstanceHealth
from cardcage.runtime.host import InstanceHost
from cardcage.runtime.limited import usage_of
from cardcage.runtime.live import Live, Surroundings, bury, close_live, lifecycle, open_live
from cardcage.runtime.logbook import LogBook
from cardcage.runtime.recovery import Recovery
from cardcage.runtime.warden import InstanceUsage
from cardcage.sandbox.report import EnforcementReport
from cardcage.supervise import LifecycleAction as Action
from cardcage.supervise import PluginState, transition
from cardcage.trust import confirm_digest


class Instance:
    """A plugin with one config, brought up, kept up and taken down."""

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        runner: Runner,
        gateway: Gateway,
        secrets: SecretSource,
        host: InstanceHost,
        clock: Clock,
        jitter: Callable[[], float],
        trail: Trail = NO_TRAIL,
    ) -> None:
        self.blueprint = blueprint
        self.trail = trail
        """Where whoever acts for this instance records what it decides and does."""
        self.state = PluginState.UNLOADED
        lines_per_s = blueprint.limits.log_lines_per_s or LOG_LINES_PER_S
        self.logbook = LogBook(blueprint.plugin, clock, lines_per_s=lines_per_s)
        self.error: CardcageError | None = None
        self._runner = runner
        self._around = Surroundings(
            runner=runner, gateway=gateway, secrets=secrets, tell_egress=self._on_egress, trail=trail
        )
        self._host = host
        self._clock = clock
        self._chronicle = Chronicle(
            blueprint,
            logbook=self.logbook,
            trail=trail,
            publish=lambda name, data: host.lifecycle_event(self, name, data),
        )
        self._recovery = Recovery(blueprint.policy.restart, clock=clock, jitter=jitter, chronicle=self._chronicle)
        self._lock = asyncio.Lock()
        self._live: Live | None = None
        self.wanted = PluginState.UNLOADED
        self._noticed = asyncio.Event()  # set once the end of the newest process has been seen
        self._tasks: set[asyncio.Task[None]] = set()
        self._hang_check: asyncio.Task[None] | None = None

    # what is known of it ------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return str(self.blueprint.instance)

    @property
    def pid(self) -> int | None:
        return self._live.process.pid if self._live else None

    @property
    def description(self) -> PluginDescription | None:
        """What the plugin said of itself when it was last loaded."""
        return self._live.description if self._live else None

    @property
    def report(self) -> EnforcementReport | None:
        """Which walls stand around the running process; None while none runs."""
        return self._live.process.report if self._live else None

    def usage(self) -> InstanceUsage | None:
        """What the running process uses; None while none runs. A few microseconds where control groups count it."""
        return usage_of(self._live.process, self.blueprint.spec.plan.limits) if self._live else None

    @property
    def egress(self) -> Sequence[EgressCount]:
        """Connections and bytes of the running process, for each granted endpoint."""
        relay = self._live.relay if self._live else None
        return relay.counts() if relay else ()

    @property
    def recovering(self) -> bool:
        """Whether the process died and a new one is on its way."""
        return not self._recovery.settled

    @property
    def restarts(self) -> int:
        """How often a new process took the place of one that died."""
        return self._recovery.restarts

    @property
    def to_be_revived(self) -> bool:
        """Whether it is down and still wanted."""
        return self.wanted is not PluginState.UNLOADED and self.state is PluginState.ERROR

    # lifecycle ----------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Bring the process up and the plugin to LOADED. A failure leaves ERROR, and nothing running."""
        async with self._lock:
            self._enter(Action.LOAD)
            self.wanted = PluginState.LOADED
            await self._open()

    async def start(self) -> None:
        """Take a loaded or stopped plugin to ACTIVE."""
        async with self._lock:
            await self._start()

    async def stop(self) -> None:
        """Take an active plugin to INACTIVE: its process stays, ready to start again."""
        async with self._lock:
            live = self._need_live(Action.STOP)
            self.wanted = PluginState.INACTIVE
            try:
                await lifecycle(self.blueprint, live.channel, "stop", self.blueprint.policy.stop_timeout_s)
            except CardcageError as error:
                failure = await with_cause(self._runner, self.blueprint, live, error, "stop")
                await self._fail(live, failure)
                raise failure from error
            self._enter(Action.STOP)
            self._chronicle.stopped()

    async def unload(self) -> None:
        """End the process in order: stop where it is active, clean up, goodbye, and a kill if it takes too long.

        The state is UNLOADED afterwards in every case; a plugin that fails while it is being stopped is logged, and
        cancelling this kills it.
        """
        self.wanted = PluginState.UNLOADED
        async with self._lock:
            if self.state is PluginState.UNLOADED:
                return
            live = self._live
            if live is not None:
                live.ending = True
            try:
                await self._take_down(live)
            except BaseException:
                # Whoever gives up waiting has no time for a farewell: the process ends all the same.
                if live is not None:
                    await close_live(self._runner, live, timeout_s=0)
                raise
            finally:
                self._live = None
                self._enter_unloaded()
            self._chronicle.unloaded()

    async def _take_down(self, live: Live | None) -> None:
        if live is None:
            return
        answers = await self._wind_down(live)
        self._enter(Action.UNLOAD)
        await close_live(self._runner, live, timeout_s=self.blueprint.policy.stop_timeout_s if answers else 0)

    def _enter_unloaded(self) -> None:
        """From whichever state an unloading has reached to its end."""
        if self.state is PluginState.ACTIVE:
            self._enter(Action.STOP)
        if self.state is not PluginState.UNLOADING:
            self._enter(Action.UNLOAD)
        self._enter(Action.FINISH_UNLOAD)

    async def aclose(self) -> None:
        """Unload, and end every task that this instance owns."""
        await self.unload()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # calls --------------------------------------------------------------------------------------------------------

    async def call(self, method: str, args: Any, *, result_type: Any = Any, timeout_s: float | None = None) -> Any:
        """Call a method of the plugin and return its result, decoded into `result_type`.

        While the plugin is being restarted the call waits for it, within its own deadline. Raises `PluginFault` for
        whatever the plugin does wrong, `Misuse` where the plugin is not active, `Unavailable` where it does not come
        back in time. Cancelling it tells the plugin.
        """
        if timeout_s is None:
            timeout_s = self.blueprint.policy.call_timeout_s
        live = self._live
        if live is None or self.state is not PluginState.ACTIVE or live.channel.ended:
            live = await self._await_active(timeout_s)
        try:
            return await live.channel.call(method, args, result_type=result_type, timeout_s=timeout_s)
        except PluginFault as fault:
            raise await self._explain(live, fault, method) from fault

    async def stream(
        self, method: str, args: Any, *, item_type: Any = Any, timeout_s: float | None = None
    ) -> AsyncIterator[Any]:
        """Call a method that answers with a stream, item by item; leaving the loop early tells the plugin to stop.

        `timeout_s` bounds the wait for each item; how long the whole stream may take is the caller's to say.
        """
        if timeout_s is None:
            timeout_s = self.blueprint.policy.call_timeout_s
        live = self._live
        if live is None or self.state is not PluginState.ACTIVE or live.channel.ended:
            live = await self._await_active(timeout_s)
        try:
            async with aclosing(live.channel.stream(method, args, item_type=item_type, timeout_s=timeout_s)) as items:
                async for item in items:
                    yield item
        except PluginFault as fault:
            raise await self._explain(live, fault, method) from fault

    async def health(self, timeout_s: float = 5.0) -> InstanceHealth:
        """Ask the plugin how it is; a plugin that cannot answer is unhealthy, not an error of the caller."""
        live, said, error = self._live, {}, self.error.message if self.error else None
        healthy = self.state in (PluginState.ACTIVE, PluginState.LOADED, PluginState.INACTIVE)
        if live is not None and healthy:
            try:
                said = await live.channel.call(
                    "cardcage.health_check", [], result_type=dict[str, Any], timeout_s=timeout_s
                )
                healthy = said.get("healthy") is not False and said.get("status") not in ("error", "unhealthy")
            except CardcageError as fault:
                healthy, error = False, fault.message
        return InstanceHealth(
            instance=self.id,
            state=self.state,
            healthy=healthy,
            pid=self.pid,
            uptime_s=None if live is None else self._clock.monotonic_s() - live.opened_at_s,
            restarts=self.restarts,
            error=error,
            plugin=said,
        )

    def ran_into(self, limit: str) -> None:
        """It ran into a limit and goes on: one of its processes was killed for memory, or it was refused a process."""
        self._chronicle.ran_into(limit, self.pid)

    # what the plugin sends (ChannelHandler) -----------------------------------------------------------------------

    async def on_call(self, method: str, args: Any, meta: Any) -> Any:
        return await self._host.call_from(self, method, args)

    def on_event(self, name: str, data: Any) -> None:
        self._host.event_from(self, name, data)

    def on_log(self, level: str, message: str, fields: Any) -> None:
        self.logbook.write(level, "log", message, fields)

    def on_metric(self, name: str, kind: str, value: float, tags: Any) -> None:
        self._host.metric_from(self, name, kind, value, tags or {})

    def _on_egress(self, event: EgressEvent) -> None:
        self._chronicle.connection(event)
        self._host.egress_event(self, event)

    # inside -------------------------------------------------------------------------------------------------------

    def _enter(self, action: Action) -> None:
        self.state = transition(self.state, action)

    def _own(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _need_live(self, action: Action) -> Live:
        transition(self.state, action)  # raises Misuse naming the state and the action
        if self._live is None:
            raise Unavailable(f"{self.blueprint.label} is restarting", plugin=self.blueprint.plugin, retry_after_s=0.1)
        return self._live

    async def _open(self) -> None:
        began_s = self._clock.monotonic_s()
        try:
            live = await open_live(self.blueprint, self._around, self, self.logbook, began_s)
        except BaseException as error:
            self._not_opened(error)
            raise
        self._live = live
        self._noticed.clear()
        self._enter(Action.FINISH_LOAD)
        self._own(asyncio.create_task(self._watch(live), name=f"watch {self.id}"))
        self._chronicle.loaded(live, self._clock.monotonic_s() - began_s)

    def _not_opened(self, error: BaseException) -> None:
        self._enter(Action.FAIL)
        if isinstance(error, CardcageError):
            self.error = error
            self._chronicle.not_loaded(error)

    async def _start(self) -> None:
        live = self._need_live(Action.START)
        self.wanted = PluginState.ACTIVE
        try:
            await lifecycle(self.blueprint, live.channel, "start", self.blueprint.policy.start_timeout_s)
        except CardcageError as error:
            failure = await with_cause(self._runner, self.blueprint, live, error, "start")
            await self._fail(live, failure)
            raise failure from error
        self._enter(Action.START)
        self.error = None
        self._chronicle.started(live.process.pid)

    async def _wind_down(self, live: Live) -> bool:
        """Stop and clean up; whatever the plugin does wrong here is noted. False where it answers no more."""
        timeout_s = self.blueprint.policy.stop_timeout_s
        steps, answers = ["cleanup"], True
        if self.state is PluginState.ACTIVE:
            steps.insert(0, "stop")
        for step in steps:
            try:
                await lifecycle(self.blueprint, live.channel, step, timeout_s)
            except CardcageError as error:
                self._chronicle.step_failed(step, error)
                if error.code == "deadline_exceeded" or live.channel.ended:
                    answers = False
                    break
        if self.state is PluginState.ACTIVE:
            self._enter(Action.STOP)
        return answers

    async def _fail(self, live: Live, error: CardcageError) -> None:
        """A command failed in the plugin: end the process and stay in ERROR."""
        live.ending = True
        self.error = error
        self._live = None
        self._enter(Action.FAIL)
        await bury(self._runner, live)
        self._chronicle.failed(error)

    async def _watch(self, live: Live) -> None:
        """Wait for the end of one process; where nobody asked for it, recover."""
        await await_end(self._runner, live)
        if self._live is live:
            self._noticed.set()
        if live.ending:
            return
        with self._recovery.under_way():
            async with self._lock:
                if live.ending or self._live is not live:
                    return
                exit_ = await bury(self._runner, live)
                self._crashed(live, exit_)
            await self._recovery.run(self)

    def _crashed(self, live: Live, exit_: Exit) -> None:
        self._live = None
        self.error = crash_of(self.blueprint, live, exit_)
        if self.state is not PluginState.ERROR:
            self._enter(Action.FAIL)
        self._chronicle.crashed(live, exit_, self.error)

    async def revive(self, wanted: PluginState) -> bool:
        """Bring it up again; False where that is wanted no more. For its recovery alone."""
        async with self._lock:
            if not self.to_be_revived:
                return False
            await self._revive(wanted)
            return True

    async def _revive(self, wanted: PluginState) -> None:
        for action in (Action.UNLOAD, Action.FINISH_UNLOAD, Action.LOAD):
            self._enter(action)
        try:
            await self._confirm_bytes()
        except BaseException as error:
            self._not_opened(error)
            raise
        await self._open()
        if wanted is not PluginState.LOADED:
            await self._start()
        if wanted is PluginState.INACTIVE:
            assert self._live is not None
            await lifecycle(self.blueprint, self._live.channel, "stop", self.blueprint.policy.stop_timeout_s)
            self._enter(Action.STOP)
            self.wanted = wanted

    async def _confirm_bytes(self) -> None:
        """The first start was planned just after the package was read; a later one may find another there."""
        await asyncio.to_thread(
            confirm_digest,
            self.blueprint.spec.package_dir,
            self.blueprint.digest,
            plugin=self.blueprint.plugin,
            version=self.blueprint.version,
        )

    async def _await_active(self, timeout_s: float) -> Live:
        """The live process, waited for where a restart is under way."""
        if self._live is not None and self._live.channel.ended and not self._live.ending:
            await self._noticed.wait()  # the task that watches the process has been woken, and runs next
        try:
            await asyncio.wait_for(self._recovery.settle(), timeout_s)
        except TimeoutError:
            raise Unavailable(
                f"{self.blueprint.label} is restarting and did not come back within {timeout_s:g} s",
                plugin=self.blueprint.plugin,
                retry_after_s=1.0,
            ) from None
        if self._live is not None and self.state is PluginState.ACTIVE:
            return self._live
        if self.state is PluginState.ERROR and self.error is not None:
            raise Unavailable(
                f"{self.blueprint.label} is not running: {self.error.message}",
                plugin=self.blueprint.plugin,
                version=self.blueprint.version,
                cause=self.error.to_json(),
            )
        raise Misuse(
            f"{self.blueprint.label} is {self.state.value}, and only an active plugin can be called",
            code="not_active",
            hint=f"start it first: start_plugin({self.id!r})",
            plugin=self.blueprint.plugin,
        )

    async def _explain(self, live: Live, fault: PluginFault, method: str) -> PluginFault:
        """The fault with its cause; a plugin that missed a deadline is watched for a hang from here on."""
        if fault.code == "deadline_exceeded" and (self._hang_check is None or self._hang_check.done()):
            check = kill_if_hung(self._runner, self.blueprint, live, lambda: self._live is live)
            self._hang_check = self._own(asyncio.create_task(check))
        return await with_cause(self._runner, self.blueprint, live, fault, method)
