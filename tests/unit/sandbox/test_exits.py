"""Why a process ended, from its wait status and what was known besides."""

from __future__ import annotations

import signal

import pytest

from cardcage.launch.exits import Evidence, classify
from cardcage.launch.runner import ExitReason

LEFT_0, LEFT_1 = 0, 1 << 8


@pytest.mark.parametrize(
    ("status", "evidence", "reason"),
    [
        (LEFT_0, Evidence(), ExitReason.STOPPED),
        (LEFT_1, Evidence(), ExitReason.CRASHED),
        (LEFT_1, Evidence(stopped_by_host=True), ExitReason.STOPPED),
        (signal.SIGKILL, Evidence(stopped_by_host=True, out_of_memory=True), ExitReason.STOPPED),
        (signal.SIGKILL, Evidence(out_of_memory=True), ExitReason.OUT_OF_MEMORY),
        (signal.SIGKILL, Evidence(), ExitReason.KILLED),
        (signal.SIGTERM, Evidence(), ExitReason.KILLED),
        (signal.SIGXCPU, Evidence(), ExitReason.CPU_LIMIT),
        (signal.SIGSYS, Evidence(), ExitReason.SYSTEM_CALL),
        (signal.SIGSEGV, Evidence(), ExitReason.CRASHED),
        (signal.SIGABRT | 0x80, Evidence(), ExitReason.CRASHED),
        (LEFT_1, Evidence(process_limit_hit=True), ExitReason.PROCESS_LIMIT),
        (LEFT_0, Evidence(process_limit_hit=True), ExitReason.STOPPED),
        (signal.SIGABRT, Evidence(process_limit_hit=True), ExitReason.PROCESS_LIMIT),
        (signal.SIGKILL, Evidence(process_limit_hit=True), ExitReason.KILLED),
        (signal.SIGTERM, Evidence(process_limit_hit=True), ExitReason.KILLED),
    ],
)
def test_the_reason_is_the_most_certain_one(status: int, evidence: Evidence, reason: ExitReason) -> None:
    assert classify(status, evidence).reason is reason


@pytest.mark.parametrize("status", [LEFT_0, LEFT_1, signal.SIGKILL, 64, signal.SIGSEGV | 0x80])
def test_an_exit_has_a_code_or_a_signal_and_never_both(status: int) -> None:
    ended = classify(status)
    assert (ended.code is None) is not (ended.signal is None)
    assert ended.detail


def test_a_plugin_that_fails_after_it_lost_a_process_for_memory_says_so_and_was_not_out_of_memory_itself() -> None:
    ended = classify(LEFT_1, Evidence(out_of_memory=True))
    assert ended.reason is ExitReason.CRASHED
    assert "another of its processes for memory" in ended.detail
