"""Finding the addresses of a name, on the host, where the plugin cannot."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

THREADS: Final = 8
"""The C library's resolver blocks. A name server that does not answer may hold up this many look-ups and no more."""


class Resolver(Protocol):
    """Where names become addresses."""

    async def resolve(self, name: str, port: int) -> tuple[str, ...]:
        """The addresses of `name` in the order in which they should be tried. Raises `OSError` where there are none."""
        ...


class SystemResolver:
    """The C library's `getaddrinfo`, in threads of its own: hosts file, DNS, and the machine's order of addresses."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="resolve")

    async def resolve(self, name: str, port: int) -> tuple[str, ...]:
        """The addresses of `name`. A look-up that is given up goes on in its thread until the C library returns."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, name, port)
        return tuple(dict.fromkeys(found))

    def close(self) -> None:
        """Let the threads go; what is being looked up still is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(name: str, port: int) -> list[str]:
    answer = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in answer]
