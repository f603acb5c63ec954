"""The list of hostile behaviours, by what they are after. Numbers up to 70 are the list that the project began from."""

from __future__ import annotations

from typing import Final

from ..behaviour import Behaviour
from .files import FILES
from .kernel import KERNEL
from .lifetimes import LIFETIMES
from .network import NETWORK
from .packages import PACKAGES
from .processes import PROCESSES
from .resources import RESOURCES
from .wire import WIRE_LIST as WIRE

CATALOGUE: Final[tuple[Behaviour, ...]] = tuple(
    sorted(
        (*FILES, *PROCESSES, *RESOURCES, *NETWORK, *KERNEL, *WIRE, *LIFETIMES, *PACKAGES),
        key=lambda behaviour: behaviour.number,
    )
)
"""Every behaviour, in order of its number."""
