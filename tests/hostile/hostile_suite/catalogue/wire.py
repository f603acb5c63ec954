"""What a plugin may say to its host: too much, too little, or nothing that makes sense."""

from __future__ import annotations

from typing import Any, Final

from ..behaviour import Attempt, Behaviour, Control
from ..scenarios import wire as scenes
from .words import DEADLINES, GRANTS, SUPERVISION, WIRE

_BROKEN: Final = {"protocol_error": WIRE}


def liar(method: str, *arguments: Any, stopped_by: dict[str, str], timeout_s: float = 15.0) -> Attempt:
    """An attempt of the plugin `wire-liar`. The wire is the same without walls, so that would be no control."""
    return Attempt(
        plugin="wire-liar",
        method=method,
        arguments=arguments,
        stopped_by=stopped_by,
        timeout_s=timeout_s,
        control=Control.NONE,
    )


WIRE_LIST: Final = (
    Behaviour(
        number=22,
        title="sends a pickle",
        audit=("message.refused",),
        attempts=(liar("pickle_for_a_frame", "$marker", stopped_by=_BROKEN),),
        scenario=scenes.send_pickle,
    ),
    Behaviour(
        number=52,
        title="sends an oversized frame",
        audit=("message.refused",),
        attempts=(
            liar("announce", 0xFFFFFFFF, stopped_by=_BROKEN),
            liar("announce", (16 << 20) + 1, stopped_by=_BROKEN),
        ),
        scenario=scenes.send_oversized,
    ),
    Behaviour(
        number=53,
        title="sends malformed or deeply nested messages",
        audit=("message.refused",),
        attempts=(
            liar("deep", 100_000, stopped_by=_BROKEN),
            liar("deep_value", 65, stopped_by={"invalid_result": WIRE}),
            liar("heavy_value", 3_000_000, stopped_by={"invalid_result": WIRE}),
            liar("hello_again", stopped_by=_BROKEN),
        ),
        scenario=scenes.send_malformed,
    ),
    Behaviour(
        number=54,
        title="never finishes a frame, or never answers",
        audit=("instance.crashed",),
        attempts=(liar("never_answer", stopped_by={"deadline_exceeded": DEADLINES}, timeout_s=0.3),),
        scenario=scenes.trickle,
    ),
    Behaviour(
        number=55,
        title="answers another call's id, or twice",
        audit=("message.refused",),
        attempts=(
            liar("answer_another", stopped_by=_BROKEN),
            liar("cancel_what_it_never_called", stopped_by=_BROKEN),
            liar("give_itself_credit", stopped_by=_BROKEN),
        ),
        scenario=scenes.answer_twice,
    ),
    Behaviour(number=56, title="never reads what it is sent", audit=("instance.crashed",), scenario=scenes.never_read),
    Behaviour(number=57, title="floods the log", scenario=scenes.flood_log),
    Behaviour(
        number=58,
        title="sends terminal escapes and line feeds in logs, names and errors",
        audit=("release.refused",),
        scenario=scenes.steer_terminal,
    ),
    Behaviour(
        number=82,
        title="hangs up and goes on running",
        audit=("instance.crashed",),
        attempts=(liar("hang_up_and_go_on", stopped_by={"crashed": SUPERVISION, "hung": SUPERVISION}),),
    ),
    Behaviour(
        number=83,
        title="calls the host without end",
        attempts=(
            liar(
                "call_the_host_without_end", 1100, stopped_by=_BROKEN | {"deadline_exceeded": DEADLINES}, timeout_s=2.0
            ),
        ),
    ),
    Behaviour(
        number=84,
        title="calls what it was not granted, or the platform's own methods",
        audit=("capability.refused",),
        attempts=(
            *(
                liar("call_host", method, stopped_by={"CallRefused": GRANTS, "HostError": GRANTS})
                for method in ("ReadCostData", "cardcage.load", "cardcage.stop", "shutdown", "../admin")
            ),
        ),
        scenario=scenes.call_without_grant,
    ),
    Behaviour(
        number=85,
        title="publishes events in the platform's or another plugin's name",
        audit=("event.refused",),
        scenario=scenes.forge_events,
    ),
    Behaviour(
        number=86,
        title="hands the host an open descriptor over the wire",
        scenario=scenes.pass_descriptor,
    ),
    Behaviour(
        number=87,
        title="answers with other types than it declared",
        scenario=scenes.answer_wrong_types,
    ),
)
"""Behaviours on the wire."""
