"""The states of a plugin, and the one table of what may follow what.

UNLOADED -> LOADING -> LOADED -> ACTIVE <-> INACTIVE -> UNLOADING -> UNLOADED
               |          |         |                       |
               +----------+---------+--------> ERROR <------+         ERROR -> UNLOADING
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from cardcage.foundation.errors import Misuse
from cardcage_sdk.status import PluginStatus

PluginState = PluginStatus
"""Where a plugin is in its life: the SDK's own states, so that host and plugin speak of the same."""


class LifecycleAction(StrEnum):
    """What moves a plugin from one state to the next."""

    LOAD = "load"
    FINISH_LOAD = "finish_load"
    START = "start"
    STOP = "stop"
    UNLOAD = "unload"
    FINISH_UNLOAD = "finish_unload"
    FAIL = "fail"
    """Whatever was under way went wrong, or the process died."""


_S, _A = PluginState, LifecycleAction

LIFECYCLE: Final[Mapping[tuple[PluginState, LifecycleAction], PluginState]] = MappingProxyType(
    {
        (_S.UNLOADED, _A.LOAD): _S.LOADING,
        (_S.LOADING, _A.FINISH_LOAD): _S.LOADED,
        (_S.LOADING, _A.FAIL): _S.ERROR,
        (_S.LOADED, _A.START): _S.ACTIVE,
        # A plugin that was loaded to be looked at, and never started, can be put away again.
        (_S.LOADED, _A.UNLOAD): _S.UNLOADING,
        (_S.LOADED, _A.FAIL): _S.ERROR,
        (_S.ACTIVE, _A.STOP): _S.INACTIVE,
        (_S.ACTIVE, _A.FAIL): _S.ERROR,
        (_S.INACTIVE, _A.START): _S.ACTIVE,
        (_S.INACTIVE, _A.UNLOAD): _S.UNLOADING,
        # A stopped plugin keeps its process, and a process can die.
        (_S.INACTIVE, _A.FAIL): _S.ERROR,
        (_S.UNLOADING, _A.FINISH_UNLOAD): _S.UNLOADED,
        (_S.UNLOADING, _A.FAIL): _S.ERROR,
        (_S.ERROR, _A.UNLOAD): _S.UNLOADING,
    }
)
"""Every move there is; a pair that is not here is refused."""


_WORDS: Final = {
    _A.LOAD: "load",
    _A.FINISH_LOAD: "finish loading",
    _A.START: "start",
    _A.STOP: "stop",
    _A.UNLOAD: "unload",
    _A.FINISH_UNLOAD: "finish unloading",
    _A.FAIL: "fail",
}


def transition(state: PluginState, action: LifecycleAction) -> PluginState:
    """The state that follows. Raises `Misuse(code="wrong_state")` naming the state and the action where none does."""
    following = LIFECYCLE.get((state, action))
    if following is None:
        possible = ", ".join(_WORDS[allowed] for (origin, allowed) in LIFECYCLE if origin is state)
        raise Misuse(
            f"a plugin that is {state} cannot {_WORDS[action]} (it can: {possible})",
            code="wrong_state",
            state=str(state),
            action=str(action),
        )
    return following
