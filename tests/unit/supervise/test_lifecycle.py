"""The table of a plugin's life allows what it says, and refuses everything else by name."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage.foundation.errors import Misuse
from cardcage.supervise import LIFECYCLE, LifecycleAction, PluginState, transition
from cardcage_sdk.status import PluginStatus

A, S = LifecycleAction, PluginState


def test_a_plugin_goes_through_its_life_in_order() -> None:
    state = S.UNLOADED
    seen = [state]
    for action in (A.LOAD, A.FINISH_LOAD, A.START, A.STOP, A.START, A.STOP, A.UNLOAD, A.FINISH_UNLOAD):
        state = transition(state, action)
        seen.append(state)
    assert seen == [
        S.UNLOADED, S.LOADING, S.LOADED, S.ACTIVE, S.INACTIVE, S.ACTIVE, S.INACTIVE, S.UNLOADING, S.UNLOADED,
    ]  # fmt: skip


@pytest.mark.parametrize("state", [S.LOADING, S.LOADED, S.ACTIVE, S.UNLOADING])
def test_what_is_under_way_can_fail_and_what_failed_can_be_unloaded(state: PluginState) -> None:
    assert transition(state, A.FAIL) is S.ERROR
    assert transition(S.ERROR, A.UNLOAD) is S.UNLOADING


@pytest.mark.parametrize(("state", "action"), [pair for pair in itertools.product(S, A) if pair not in LIFECYCLE])
def test_any_other_move_is_refused_naming_the_state_and_the_action(state: PluginState, action: LifecycleAction) -> None:
    with pytest.raises(Misuse, match=f"a plugin that is {state} cannot ") as caught:
        transition(state, action)
    assert caught.value.code == "wrong_state"
    assert caught.value.fields["state"] == state
    assert caught.value.fields["action"] == action


@given(st.sampled_from(list(S)))
def test_from_every_state_a_plugin_can_be_unloaded(state: PluginState) -> None:
    reached, frontier = {state}, [state]
    while frontier:
        here = frontier.pop()
        new = {following for (origin, _), following in LIFECYCLE.items() if origin is here} - reached
        reached |= new
        frontier += new
    assert S.UNLOADED in reached


def test_the_states_are_those_that_plugins_see() -> None:
    assert S is PluginStatus
