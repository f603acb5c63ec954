"""The host's end of a guest's connections: each becomes one that the relay accepts, as if its listener stood here."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Sequence

from cardcage.launch.handover import HandedListener, connected_pair
from cardcage.launch.vm.streams import Streams, StreamsError
from cardcage.sandbox.network import Listener


class GuestConnections:
    """Carries what a guest's plugin connects to, until the link ends or is closed. Needs a running loop."""

    def __init__(self, link: socket.socket, places: Sequence[Listener]) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: dict[int, int] = {}
        self._entrances = [HandedListener() for _ in places]
        self.listeners = list(zip(places, self._entrances, strict=True))
        """Each place with what the relay accepts from; whoever takes them closes them."""
        self._streams = Streams(link, connect=self._connect, before_close=self._forget)
        self._watch()

    def close(self) -> None:
        """End all connections and the link."""
        self._streams.close()
        self._watch()

    def _connect(self, place: int) -> socket.socket | None:
        if place >= len(self._entrances):
            raise StreamsError(f"place {place} is not in the plan")
        try:
            theirs, ours = connected_pair()
        except OSError:
            return None
        if self._entrances[place].hand_in(ours):
            return theirs
        theirs.close()
        return None

    def _on_ready(self, descriptor: int, mask: int) -> None:
        try:
            self._streams.step({descriptor: mask})
        except StreamsError:
            self._streams.close()  # a guest that breaks the rules reaches nothing any more
        self._watch()

    def _watch(self) -> None:
        wanted = self._streams.wanted()
        for descriptor in self._watched.keys() - wanted.keys():
            self._set(descriptor, 0)
        for descriptor, mask in wanted.items():
            self._set(descriptor, mask)

    def _forget(self, descriptor: int) -> None:
        self._set(descriptor, 0)

    def _set(self, descriptor: int, wanted: int) -> None:
        changed = self._watched.get(descriptor, 0) ^ wanted
        if changed & select.POLLIN:
            if wanted & select.POLLIN:
                self._loop.add_reader(descriptor, self._on_ready, descriptor, select.POLLIN)
            else:
                self._loop.remove_reader(descriptor)
        if changed & select.POLLOUT:
            if wanted & select.POLLOUT:
                self._loop.add_writer(descriptor, self._on_ready, descriptor, select.POLLOUT)
            else:
                self._loop.remove_writer(descriptor)
        if wanted:
            self._watched[descriptor] = wanted
        else:
            self._watched.pop(descriptor, None)
