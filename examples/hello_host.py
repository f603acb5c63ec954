"""The whole program of a host: an extension point, the plugins of a folder, a typed call to each that provides it."""

import asyncio
from pathlib import Path
from typing import Protocol

from cardcage import PluginManager, extension_point


@extension_point("greeter", version=1)
class Greeter(Protocol):
    async def greet(self, name: str) -> str: ...


async def main() -> None:
    async with PluginManager(plugin_paths=[Path(__file__).parent]) as manager:
        for greeter in manager.providers(Greeter):
            print(greeter.plugin.name, await greeter.greet("Ada"))


asyncio.run(main())
