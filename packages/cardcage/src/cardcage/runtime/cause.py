"""Why a process went silent or ended: watching for its end, telling a hang from a slow answer, and naming the cause."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from cardcage.foundation.errors import CardcageError, PluginFault
from cardcage.launch.runner import Exit, ExitReason, Runner
from cardcage.runtime.blueprint import Blueprint
from cardcage.runtime.deaths import died
from cardcage.runtime.live import Live

HANG_UP_S: Final = 1.0
"""How long a process may take to end once its connection is lost; one that crashed has ended already."""

Failure = TypeVar("Failure", bound=CardcageError)


async def await_end(runner: Runner, live: Live) -> None:
    """Return when the process has ended or its connection is lost, whichever comes first."""
    waiting = asyncio.ensure_future(runner.wait(live.process))
    try:
        await asyncio.wait({waiting, live.channel.closed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def kill_if_hung(runner: Runner, blueprint: Blueprint, live: Live, is_current: Callable[[], bool]) -> None:
    """After a missed deadline: a plugin that does not even answer a ping in the grace is hung, and is killed."""
    grace_s = blueprint.policy.hang_grace_s
    try:
        await live.channel.ping(grace_s)
    except CardcageError:
        if not live.ending and is_current():
            live.killed_for = f"missed a deadline and then answered nothing for {grace_s:g} s, so it was killed"
            runner.kill(live.process)


async def with_cause(
    runner: Runner, blueprint: Blueprint, live: Live, failure: Failure, method: str
) -> Failure | PluginFault:
    """The failure itself, or, where only the connection is known to be lost, how the process ended."""
    if failure.code != "connection_lost":
        return failure
    live.interrupted = live.interrupted or method
    exit_ = await _last_status(runner, live)
    if live.killed_for:
        return _fault(blueprint, live.killed_for, "hung", method=method)
    if exit_.reason is ExitReason.STOPPED and live.ending:
        return _fault(blueprint, f"was stopped during {method}()", "stopped", method=method)
    return died(blueprint, exit_, f"during {method}()")


def crash_of(blueprint: Blueprint, live: Live, exit_: Exit) -> PluginFault:
    """The error for a process that has ended without being asked to."""
    reason = live.channel.closed.result()
    if live.killed_for:
        return _fault(blueprint, live.killed_for, "hung")
    if reason.code in ("protocol_error", "deadline_exceeded"):
        return _fault(blueprint, reason.message, reason.code)
    when = f"during {live.interrupted}()" if live.interrupted else "without being asked to"
    return died(blueprint, exit_, when)


async def _last_status(runner: Runner, live: Live) -> Exit:
    """How a process that hung up has ended; one that goes on without its connection is killed.

    Whoever waits here may hold the instance's lock, so that nobody else could.
    """
    waiting = asyncio.ensure_future(runner.wait(live.process))
    try:
        done, _ = await asyncio.wait({waiting}, timeout=HANG_UP_S)
        if not done and not live.ending:  # where the host is ending it, that has a bound of its own
            live.killed_for = live.killed_for or "hung up and went on running, so it was killed"
            runner.kill(live.process)
        return await waiting
    finally:
        waiting.cancel()


def _fault(blueprint: Blueprint, what: str, code: str, **fields: Any) -> PluginFault:
    message = f"{blueprint.label} {what}"
    return PluginFault(message, code=code, plugin=blueprint.plugin, version=blueprint.version, **fields)
