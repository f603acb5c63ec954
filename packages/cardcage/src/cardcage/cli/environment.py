"""The environment variables that the `cardcage` command heeds: one table, from which the reference is made."""

from __future__ import annotations

from typing import Final

STATE_DIR: Final = "CARDCAGE_HOME"
POLICY: Final = "CARDCAGE_POLICY"
ENVIRONMENT: Final = "CARDCAGE_ENVIRONMENT"
DEBUG: Final = "CARDCAGE_DEBUG"
NO_COLOR: Final = "NO_COLOR"

MEANINGS: Final = {
    STATE_DIR: "The host's folder, where `--state-dir` does not name one: registry, data of plugins, logs.",
    POLICY: "The policy, where nothing else names one: a level, or the path of a policy file.",
    ENVIRONMENT: "What kind of place this host is, such as `production`: rules of a policy may ask for it.",
    DEBUG: "Where it is not empty, an error also shows its traceback.",
    NO_COLOR: "Where it is not empty, nothing is coloured, not even on a terminal.",
}
