"""What should happen next to an instance: lifecycle, restarts and hangs, decided and never acted upon. Pure."""

from cardcage.supervise.hang import HangPolicy, HangState, HangVerdict, hang_verdict
from cardcage.supervise.lifecycle import LIFECYCLE, LifecycleAction, PluginState, transition
from cardcage.supervise.restart import RestartHistory, RestartMode, RestartPolicy, Step, StepAction, next_step

__all__ = [
    "LIFECYCLE",
    "HangPolicy",
    "HangState",
    "HangVerdict",
    "LifecycleAction",
    "PluginState",
    "RestartHistory",
    "RestartMode",
    "RestartPolicy",
    "Step",
    "StepAction",
    "hang_verdict",
    "next_step",
    "transition",
]
