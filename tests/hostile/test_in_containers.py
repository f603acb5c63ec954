"""The behaviours that matter most are stopped in containers too; `make hostile` runs the whole catalogue there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hostile_suite import CATALOGUE, Arena, Behaviour

from cardcage.launch.oci_runtimes import installed_runtimes

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the control runs without walls, and is warned of

ESSENTIALS = (1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 17, 24, 25, 26, 27, 29, 30, 33, 39, 44, 45, 46, 49, 59, 60)
"""Files, processes, the environment, rights, loads, the network, the kernel, and what outlives its stop."""


@pytest.fixture(scope="module")
def contained(in_loop: Any, machine_has_walls: None) -> Iterator[Arena]:
    """The arena, its plugins in containers."""
    if not installed_runtimes():
        pytest.skip("no OCI runtime is installed: crun")
    arena = Arena(isolation="container")
    in_loop(arena.__aenter__())
    yield arena
    in_loop(arena.__aexit__(None, None, None))


def sentence(behaviour: Behaviour) -> str:
    return f"{behaviour.number} {behaviour.title}"


@pytest.mark.parametrize("behaviour", [each for each in CATALOGUE if each.number in ESSENTIALS], ids=sentence)
def test_it_is_stopped_in_a_container(behaviour: Behaviour, contained: Arena, in_loop: Any) -> None:
    if behaviour.root_only and not contained.as_root:
        pytest.skip("must run as root: an ordinary user's host cannot be attacked so")
    row = in_loop(contained.run(behaviour))
    assert row.stopped, row.fault
