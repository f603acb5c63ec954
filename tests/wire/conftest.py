"""Sessions that have met."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from cardcage_sdk.wire import Encoding, Role, Session, WireLimits

Meet: TypeAlias = Callable[..., tuple[Session, Session]]


@pytest.fixture(scope="session")
def meet() -> Meet:
    """Makes a host's and a plugin's session that are ready for each other."""

    def meet(encoding: Encoding = Encoding.BINARY, **limits: int) -> tuple[Session, Session]:
        host = Session(Role.HOST, limits=WireLimits(**limits))
        plugin = Session(Role.PLUGIN, encoding=encoding, limits=WireLimits(**limits))
        host.receive_data(plugin.hello(sdk="test"))
        plugin.receive_data(host.ready())
        return host, plugin

    return meet
