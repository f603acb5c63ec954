"""What a package may be made of, and what it may ask for."""

from __future__ import annotations

from typing import Final

from ..behaviour import Behaviour
from ..scenarios import packages as scenes
from ..scenarios import trust

PACKAGES: Final = (
    Behaviour(
        number=18,
        title="comes in a package with absolute, climbing or device members",
        audit=("release.refused",),
        scenario=scenes.strange_members,
    ),
    Behaviour(number=19, title="comes in a package with a set-id file", scenario=scenes.setuid_member, root_only=True),
    Behaviour(
        number=20,
        title="comes in an archive that unpacks outside its folder",
        audit=("release.refused",),
        scenario=scenes.zip_slip,
    ),
    Behaviour(
        number=21,
        title="comes in a package that is a bomb of files or bytes",
        audit=("release.refused",),
        scenario=scenes.bomb,
    ),
    Behaviour(number=23, title="runs code when it is registered or scanned", scenario=scenes.run_when_registered),
    Behaviour(
        number=62, title="has a manifest that is an alias bomb", audit=("release.refused",), scenario=scenes.alias_bomb
    ),
    Behaviour(
        number=63, title="has a name that looks like another's", audit=("release.refused",), scenario=scenes.look_alike
    ),
    Behaviour(
        number=64, title="depends on a name that somebody else may have taken", scenario=trust.dependency_confusion
    ),
    Behaviour(number=65, title="runs code while it is built from source", scenario=trust.build_from_source),
    Behaviour(
        number=66,
        title="loses its signature, or has one of a weaker algorithm",
        audit=("release.changed",),
        scenario=trust.strip_signature,
    ),
    Behaviour(
        number=67, title="is rolled back to an older release", audit=("release.refused",), scenario=trust.roll_back
    ),
    Behaviour(number=68, title="is swapped after it was verified", audit=("release.changed",), scenario=trust.swap),
    Behaviour(number=69, title="asks for more at an upgrade", audit=("instance.refused",), scenario=trust.ask_for_more),
    Behaviour(number=70, title="is started with weaker walls than it asks for", scenario=trust.weaker_walls),
    Behaviour(
        number=88, title="asks to run without walls", audit=("isolation.refused",), scenario=trust.ask_for_no_walls
    ),
    Behaviour(
        number=89,
        title="brings a module that stands in for one of the standard library or the SDK",
        scenario=scenes.shadow_modules,
    ),
    Behaviour(
        number=90,
        title="has a config schema that takes for ever to check",
        audit=("instance.refused",),
        scenario=scenes.schema_bomb,
    ),
)
"""Behaviours of packages."""
