"""What is installed, in which order it starts, and the port through which that is remembered.

`model` holds the records, `store` the port (its adapters stand in `cardcage.storage`), `discovery` finds packages in
folders, `resolve` decides the start order, `registration` installs verified releases in one step.
"""

from cardcage.registry.discovery import Candidate, CandidateCache, Discovery, MemoryCache, discover
from cardcage.registry.graph import dependency_graph
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
from cardcage.registry.registration import capability_map, prepare, register, unregister
from cardcage.registry.resolve import Need, Node, Resolution, dependents, node_of, resolve
from cardcage.registry.store import Store
from cardcage.registry.uids import DEFAULT_UID_RANGE, UidRange, choose_uid_range, parse_uid_map

__all__ = [
    "DEFAULT_UID_RANGE",
    "Candidate",
    "CandidateCache",
    "Change",
    "CountRestart",
    "DesiredState",
    "Discovery",
    "InstalledPlugin",
    "InstanceRecord",
    "MemoryCache",
    "Need",
    "Node",
    "PutInstance",
    "PutPlugin",
    "PutSetting",
    "RemoveInstance",
    "RemovePlugin",
    "Resolution",
    "RestartCount",
    "RestartMode",
    "Store",
    "UidRange",
    "capability_map",
    "choose_uid_range",
    "dependency_graph",
    "dependents",
    "discover",
    "instance_id",
    "node_of",
    "parse_uid_map",
    "prepare",
    "register",
    "resolve",
    "unregister",
]
