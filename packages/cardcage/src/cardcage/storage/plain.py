"""Values as every store keeps them: JSON, and so a copy that nobody else can change."""

from __future__ import annotations

import json
from typing import Any

from cardcage.foundation.errors import Misuse


def to_text(value: Any, what: str) -> str:
    """The value as JSON. Raises `Misuse` (code `not_plain_data`) naming `what` where it holds something else."""
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Misuse(
            f"{what} cannot be kept: expected mappings with text keys, lists, texts, numbers, booleans and null, "
            f"found something else: {error}",
            code="not_plain_data",
        ) from error


def from_text(text: str) -> Any:
    """The value that was kept."""
    return json.loads(text)


def config_text(instance: str, config: Any) -> str:
    """The config of an instance as JSON."""
    return to_text(config, f'the config of instance "{instance}"')


def setting_text(name: str, value: Any) -> str:
    """The value of a setting as JSON."""
    return to_text(value, f'the setting "{name}"')
