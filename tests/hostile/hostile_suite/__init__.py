"""The confinement suite: hostile plugins, what must stop each, and the arena in which they are let loose.

`catalogue` is the list, as data. `Arena` runs it over a real `PluginManager`. `weaken` takes one wall away, to show
that the suite can fail.
"""

from .arena import Arena
from .behaviour import Attempt, Behaviour, Control, Row
from .catalogue import CATALOGUE

__all__ = ["CATALOGUE", "Arena", "Attempt", "Behaviour", "Control", "Row"]
