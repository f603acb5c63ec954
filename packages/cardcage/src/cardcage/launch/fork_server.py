"""The fork server as the host keeps it: its process, what is asked of it, and what it and its instances answer."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from cardcage.foundation.errors import Unavailable
from cardcage.foundation.limits import CONNECT_TIMEOUT_S, STOP_TIMEOUT_S
from cardcage.launch import zygote_main
from cardcage.launch.exits import Evidence, classify
from cardcage.launch.forked import ForkedInstance, fail, resolve
from cardcage.launch.groups import evidence_of, plan_in_group
from cardcage.launch.pipes import Pipes
from cardcage.launch.refusals import Refusal
from cardcage.launch.runner import LaunchSpec
from cardcage.launch.setup import NOT_ENCRYPTED, no_walls, setup_failed, wall_error
from cardcage.sandbox.control_groups import ControlGroup
from cardcage.sandbox.disk_use import disk_layer
from cardcage.sandbox.network import LISTENERS_MAX
from cardcage.sandbox.plan import PYTHON_DIR, PythonLayout, inside_library, inside_stdlib, python_path
from cardcage.sandbox.report import EnforcementReport, Layer, LayerName, LayerStatus, Mode

_STARTS_AT_ONCE_MAX: Final = 8
"""Walls going up at the same time. More would only wait for the kernel's locks on mounts and networks, hold up the rest
of the machine meanwhile, and overflow the control socket, whose buffer takes about a dozen plans."""

_DESCRIPTORS_MAX: Final = 2 * LISTENERS_MAX + 2
"""The listeners that may come with a report: those of the plan, their plain HTTP neighbours, the proxy's, and that of
a recording."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class ForkServer:
    """One fork server process and the instances that came of it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        self._popen: subprocess.Popen[bytes] | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self.turn = asyncio.Semaphore(_STARTS_AT_ONCE_MAX)
        self._instances: dict[int, ForkedInstance] = {}
        self._last_number = 0
        self.ended = False
        self.fallback = False

    async def start(
        self, python: PythonLayout, libraries: Sequence[tuple[str, Path]], main: str, *, mode: Mode
    ) -> None:
        """Start the process and wait until it can fork."""
        self.fallback = mode is Mode.FALLBACK
        self._control.send(fork_server_order(python, libraries, main, mode=mode))
        self._popen = await asyncio.to_thread(self._spawn, python.executable)
        self._theirs.close()
        self._loop.add_reader(self._control, self._on_reply)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._ready
        except BaseException:
            await self.aclose()
            raise

    def _spawn(self, executable: str) -> subprocess.Popen[bytes]:
        theirs = self._theirs.fileno()
        script = str(Path(zygote_main.__file__))
        return subprocess.Popen(  # noqa: S603 -- our own interpreter and script
            [executable, "-I", "-S", "-B", "-X", "utf8", script, str(theirs)],
            env={},
            cwd="/",
            pass_fds=(theirs,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None,
            start_new_session=True,
        )

    async def request(
        self, spec: LaunchSpec, pipes: Pipes, group: ControlGroup | None, group_layer: Layer
    ) -> ForkedInstance:
        """Ask for an instance and wait until it has been forked."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._last_number += 1
        instance = ForkedInstance(
            number=self._last_number,
            spec=spec,
            report=ours,
            forked=self._loop.create_future(),
            up=self._loop.create_future(),
            exited=self._loop.create_future(),
            group=group,
            group_layer=group_layer,
        )
        descriptors = [pipes.their_sock.fileno(), pipes.their_stdout, pipes.their_stderr, theirs.fileno()]
        descriptors += () if group is None else group.entries
        try:
            if self.ended:
                raise Unavailable("the fork server ended while an instance was being started", retry_after_s=0.1)
            try:
                socket.send_fds(self._control, [self._packet(instance)], descriptors)
            except OSError as error:
                # A plan of thousands of grants is too long for a packet.
                raise setup_failed(spec, f"its plan could not be sent: {error.strerror}", errno=error.errno) from error
            self._instances[instance.number] = instance
            self._loop.add_reader(ours, self._on_report, instance)
            await self._forked(instance)
        except BaseException:
            if instance.number not in self._instances:
                ours.close()
            raise
        finally:
            theirs.close()
            if group is not None:
                group.close_entries()
        return instance

    @staticmethod
    def _packet(instance: ForkedInstance) -> bytes:
        return instance.number.to_bytes(zygote_main.NUMBER_BYTES, "big") + _encode(
            plan_in_group(instance.spec.plan, instance.group)
        )

    async def _forked(self, instance: ForkedInstance) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.shield(instance.forked)
        except TimeoutError:
            self._give_up()
            raise Unavailable(
                f"the fork server did not answer within {CONNECT_TIMEOUT_S:g} s, so it was ended with all instances",
                code="zygote_failed",
                retry_after_s=0.1,
            ) from None
        except asyncio.CancelledError:
            instance.kill()  # takes effect when the reply brings the means to it
            done, _ = await asyncio.wait({instance.exited}, timeout=STOP_TIMEOUT_S)
            if not done:
                self._give_up()
            raise

    def _give_up(self) -> None:
        """End a fork server that answers no more; its child, which does the work, dies with it."""
        assert self._popen is not None
        self._popen.kill()
        self._on_end()

    def _on_reply(self) -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._control, zygote_main.PACKET_BYTES_MAX, 1)
        except BlockingIOError:
            return
        except OSError:
            packet, descriptors = b"", []
        if not packet:
            self._on_end()
            return
        number, status, error = _decode(packet)
        if number == 0:
            if error:
                fail(self._ready, no_walls(f"namespaces cannot be made ({error})"))
            resolve(self._ready, None)
            return
        instance = self._instances[number]
        if descriptors:
            instance.pidfd = descriptors[0]
            resolve(instance.forked, None)
            if instance.stopped_by_host:
                instance.kill()
        elif status is not None:
            self._on_report(instance)
            self._settle(instance, status)
        else:
            fail(instance.forked, setup_failed(instance.spec, f"the fork failed: {error}"))
            self._settle(instance, 1 << 8)

    def _on_report(self, instance: ForkedInstance) -> None:
        while True:
            try:
                packet, descriptors, _, _ = socket.recv_fds(
                    instance.report, zygote_main.PACKET_BYTES_MAX, _DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, OSError):
                return
            if not packet:
                self._loop.remove_reader(instance.report)
                return
            match _decode(packet):
                case ["ready", rows, *rest]:
                    places = rest[0] if rest else ()
                    if len(rest) > 1 and rest[1]:
                        instance.recorder = descriptors.pop()
                    instance.take_listeners(places, descriptors)
                    if instance.spec.plan.fallback:
                        instance.open_switchboard()
                    resolve(instance.up, _enforcement(rows, instance.group_layer))
                case ["failed", rows, step, number, detail]:
                    fail(instance.up, wall_error(instance.spec, step, number, detail))
                case ["connect", number, address, port]:
                    instance.connect(number, address, port)
                case ["refused", why, address, port, more]:
                    instance.refusals.tell(Refusal(why, address, port, more))
                case ["ended", status]:
                    instance.plugin_status = status
                case other:
                    raise AssertionError(f"an instance reported {other!r}")

    def _settle(self, instance: ForkedInstance, status: int) -> None:
        """The instance is gone, its init with `status`: say how it ended, to whoever waits."""
        status = status if instance.plugin_status is None else instance.plugin_status
        self._instances.pop(instance.number, None)
        self._loop.remove_reader(instance.report)
        instance.report.close()
        instance.close_listeners()
        evidence = evidence_of(instance.group, Evidence(stopped_by_host=instance.stopped_by_host))
        if instance.group is not None:
            instance.group.remove()
        resolve(instance.forked, None)
        why = ", out of the memory it was given" if evidence.out_of_memory else ""
        what = f"the process ended before its walls were up ({status}){why}"
        fail(instance.up, setup_failed(instance.spec, what))
        resolve(instance.exited, classify(status, evidence))
        if instance.pidfd >= 0:
            os.close(instance.pidfd)
            instance.pidfd = -1

    def _on_end(self) -> None:
        """The fork server is gone, and the kernel has ended its instances with it."""
        if self.ended:
            return
        self.ended = True
        self._loop.remove_reader(self._control)
        self._control.close()
        fail(
            self._ready,
            Unavailable(
                "the fork server ended before it could start anything", code="zygote_failed", retry_after_s=1.0
            ),
        )
        for instance in tuple(self._instances.values()):
            self._settle_when_gone(instance)

    def _settle_when_gone(self, instance: ForkedInstance) -> None:
        if instance.pidfd < 0:
            self._settle(instance, signal.SIGKILL)
            return

        def gone() -> None:
            self._loop.remove_reader(instance.pidfd)
            self._on_report(instance)
            self._settle(instance, signal.SIGKILL)

        self._loop.add_reader(instance.pidfd, gone)

    async def aclose(self) -> None:
        """End all instances, then the fork server, and wait until they are gone."""
        for instance in tuple(self._instances.values()):
            instance.kill()
        waiting = [asyncio.shield(instance.exited) for instance in self._instances.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=STOP_TIMEOUT_S)
        self._on_end()
        if self._popen is not None:
            # It ends by itself when the control socket closes, after it has taken in its child: killed at once, it
            # would leave that to the machine's first process, which in many containers takes nothing in.
            try:
                await asyncio.to_thread(self._popen.wait, 1.0)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                await asyncio.to_thread(self._popen.wait)
        await asyncio.gather(*waiting)


def fork_server_order(
    python: PythonLayout, libraries: Sequence[tuple[str, Path]], main: str, *, mode: Mode, at_place: bool = False
) -> bytes:
    """The first packet for a fork server. `at_place`: Python and the packages stand where plugins see them already."""
    homes = {python.stdlib: inside_stdlib(python)}
    homes |= {str(source): inside_library(name, source) for name, source in libraries}
    places = [inside_library(name, source) if at_place else str(source) for name, source in libraries]
    order = {
        "main": main,
        "as_root": mode is Mode.ROOT,
        "fallback": mode is Mode.FALLBACK,
        "packages": places,
        "homes": {} if at_place else homes,
        "python_path": python_path(python),
        "python_dir": PYTHON_DIR,
    }
    return json.dumps(order).encode()


def _enforcement(rows: Iterable[Sequence[str]], group_layer: Layer) -> EnforcementReport:
    told = {name: Layer(name=name, status=LayerStatus(status), detail=detail) for name, status, detail in rows}
    told = {str(layer.name): layer for layer in (NOT_ENCRYPTED,)} | told
    told |= {str(layer.name): layer for layer in (group_layer, disk_layer())}
    order = [str(name) for name in LayerName]
    return EnforcementReport(layers=tuple(sorted(told.values(), key=lambda layer: order.index(str(layer.name)))))
