"""What is installed, in which order it starts, and the port through which that is remembered.

`model` holds the records, `store` the port (its adapters stand in `cardcage.storage`), `discovery` finds packages in
folders, `resolve` decides the start order, `registration` installs a verified release in one step.
"""

from cardcage.registry.model import (
    Change,
    CountRestart,
    DesiredState,
    InstalledPlugin,
    InstanceRecord,
    PutInstance,
    PutPlugin,
    PutSetting,
    RemoveInstance,
    RemovePlugin,
    RestartCount,
    RestartMode,
    instance_id,
)
from cardcage.registry.store import Store
from cardcage.registry.uids import DEFAULT_UID_RANGE, UidRange

__all__ = [
    "DEFAULT_UID_RANGE",
    "Change",
    "CountRestart",
    "DesiredState",
    "InstalledPlugin",
    "InstanceRecord",
    "PutInstance",
    "PutPlugin",
    "PutSetting",
    "RemoveInstance",
    "RemovePlugin",
    "RestartCount",
    "RestartMode",
    "Store",
    "UidRange",
    "instance_id",
]
