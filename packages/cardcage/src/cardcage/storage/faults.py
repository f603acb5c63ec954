"""The sentences that every store says alike."""

from __future__ import annotations

from cardcage.foundation.errors import Misuse


def plugin_unknown(name: str) -> Misuse:
    """Nothing of that name is installed."""
    return Misuse(f'plugin "{name}" is not installed', code="plugin_unknown", plugin=name)


def instance_unknown(id: str) -> Misuse:  # noqa: A002 - the field is called `id` everywhere
    """There is no instance with that id."""
    return Misuse(f'there is no instance "{id}"', code="instance_unknown", instance=id)


def instance_exists(id: str) -> Misuse:  # noqa: A002
    """A new instance was to be made with an id that is taken."""
    return Misuse(
        f'instance "{id}" exists already',
        code="instance_exists",
        hint="choose another label, or remove that instance first",
        instance=id,
    )
