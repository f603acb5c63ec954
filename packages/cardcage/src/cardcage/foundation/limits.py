"""The numbers that bound everything that grows, each with its reason."""

from __future__ import annotations

from typing import Final

MIB: Final = 1024 * 1024

MANIFEST_BYTES_MAX: Final = 256 * 1024
"""A manifest is written by a person; the largest seen in the wild are under 64 KiB."""

MANIFEST_DEPTH_MAX: Final = 32
"""Nested mappings and lists; a JSON Schema inside a manifest seldom passes 12."""

MANIFEST_NODES_MAX: Final = 20_000
"""Scalars, lists and mappings together after aliases are refused: bounds the time the checks may take."""

PACKAGE_FILES_MAX: Final = 20_000
PACKAGE_BYTES_MAX: Final = 512 * MIB
"""A package that is larger brings a data set, and data belongs in the data folder."""

CALL_TIMEOUT_S: Final = 30.0
"""The deadline of a call that names none: long for a call, short for a person who waits on a hung plugin."""

START_TIMEOUT_S: Final = 20.0
"""Import, load, initialize and start together. The documents ask for 2 s on average; heavy imports need more."""

STOP_TIMEOUT_S: Final = 5.0
"""How long a plugin may take to stop and clean up before it is killed."""

CONNECT_TIMEOUT_S: Final = 10.0
"""From the fork to the plugin's hello; nothing of the plugin's own runs in it."""

EMULATED_CONNECT_TIMEOUT_S: Final = 60.0
EMULATED_START_TIMEOUT_S: Final = 180.0
EMULATED_HANG_GRACE_S: Final = 20.0
"""The same in a virtual machine whose processor is emulated: Python takes some sixteen times as long there."""

LOG_LINE_CHARS_MAX: Final = 8192
LOG_LINES_PER_S: Final = 200
LOG_BURST_LINES: Final = 1000
"""A chatty plugin writes tens of lines a second; what comes above is counted and the count is logged."""

PLUGIN_LOG_HISTORY_LINES: Final = 2000
"""Lines of each instance kept for `cardcage plugin logs`."""

SERVICE_CALLS_PER_S: Final = 500
SERVICE_BURST_CALLS: Final = 2000
"""Calls of one instance into the host's services. One takes the host some tens of microseconds to a few milliseconds,
so that no plugin can have a core of the host to itself for long."""

EVENTS_PER_S: Final = 1000
EVENTS_BURST: Final = 5000
"""Events and measurements of one instance together. Each is held against every subscription and queued for some."""
