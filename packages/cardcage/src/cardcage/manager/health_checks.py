"""The regular look at how every active instance is."""

from __future__ import annotations

import asyncio

from cardcage.broker import Broker
from cardcage.manager.live_instances import LiveInstances
from cardcage.supervise import PluginState


async def check_health(live: LiveInstances, broker: Broker, interval_s: float) -> None:
    """Ask every active instance how it is, each `interval_s` seconds; publish which are not well. Never returns."""
    while True:
        await asyncio.sleep(interval_s)
        active = [each for each in live if each.state is PluginState.ACTIVE]
        for health in await asyncio.gather(*(each.health() for each in active)):
            if not health.healthy:
                broker.publish("plugin.unhealthy", health.to_json())
