"""Enciphered links: both ends prove who they are, bytes arrive whole and in order, and everything else is refused."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardcage.foundation.errors import PluginFault
from cardcage.foundation.names import InstanceId
from cardcage.launch.link import Link, LinkKeys, Links
from cardcage.trust.authority import Authority, Certificate
from cardcage_sdk.secure import HOST_NAME, LinkError, SecurePump, host_context, instance_context, serve

TIMEOUT_S = 20.0
PARROT = InstanceId("parrot/loud")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path)


@pytest.fixture
def links(authority: Authority) -> Links:
    return Links(authority)


@dataclass
class Inside:
    """The process before a plugin, as a thread: `plain` is what the plugin would hold."""

    stream: socket.socket
    keys: LinkKeys
    plain: socket.socket = field(init=False)
    error: Exception | None = None
    has_gone: bool = False

    def __post_init__(self) -> None:
        self.plain, self._theirs = socket.socketpair()
        self.plain.settimeout(TIMEOUT_S)
        self._woken, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            context = instance_context(self.keys.ca_pem, self.keys.own_pem.encode())
            pump = SecurePump(self._theirs, self.stream.fileno(), context, server=False)
            serve(pump, self._theirs, self.stream.fileno(), wake=self._woken, on_wake=self._on_wake)
        except LinkError as error:
            self.error = error
        finally:
            self.stream.close()
            self._theirs.close()

    def _on_wake(self) -> bool:
        os.read(self._woken, 1)
        return self.has_gone

    def gone(self) -> None:
        """Say that the plugin's process has ended."""
        self.has_gone = True
        os.write(self._wake, b"x")

    def wake(self) -> None:
        os.write(self._wake, b"x")

    def join(self) -> None:
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self.gone()
        self.plain.close()
        self.join()
        os.close(self._wake)
        os.close(self._woken)


MakeInside = Callable[[socket.socket, LinkKeys], Inside]


@pytest.fixture
def make_inside() -> Iterator[MakeInside]:
    made: list[Inside] = []

    def make(stream: socket.socket, keys: LinkKeys) -> Inside:
        made.append(Inside(stream, keys))
        return made[-1]

    yield make
    for inside in made:
        inside.close()


@dataclass
class Linked:
    """Both plain ends of a link that stands."""

    host: socket.socket
    link: Link
    inside: Inside

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.get_running_loop().sock_sendall(self.host, data)

    async def receive(self, count: int = 0) -> bytes:
        """`count` bytes, or all until the end."""
        parts = bytearray()
        async with asyncio.timeout(TIMEOUT_S):
            while not count or len(parts) < count:
                part = await asyncio.get_running_loop().sock_recv(self.host, 65536)
                if not part:
                    break
                parts += part
        return bytes(parts)

    def inside_receive(self, count: int = 0) -> bytes:
        parts = bytearray()
        while not count or len(parts) < count:
            part = self.inside.plain.recv(65536)
            if not part:
                break
            parts += part
        return bytes(parts)


@pytest.fixture
async def linked(links: Links, make_inside: MakeInside) -> AsyncIterator[Linked]:
    ours, theirs = socket.socketpair()
    certificate = links.issue(PARROT)
    inside = make_inside(theirs, links.keys(certificate))
    host, link = await links.open(ours, certificate, plugin="parrot", version="1.0.0")
    host.setblocking(False)
    yield Linked(host, link, inside)
    host.close()
    link.close()


async def test_bytes_go_both_ways(linked: Linked) -> None:
    await linked.send(b"Good day")
    assert await asyncio.to_thread(linked.inside_receive, 8) == b"Good day"
    await asyncio.to_thread(linked.inside.plain.sendall, b"Good evening")
    assert await linked.receive(12) == b"Good evening"


async def test_megabytes_arrive_whole_in_both_directions_at_once(linked: Linked) -> None:
    out, back = os.urandom(5_000_000), os.urandom(5_000_000)
    sending = asyncio.create_task(linked.send(out))
    answering = asyncio.create_task(asyncio.to_thread(linked.inside.plain.sendall, back))
    reading = asyncio.create_task(asyncio.to_thread(linked.inside_receive, len(out)))
    assert await linked.receive(len(back)) == back
    assert await reading == out
    await asyncio.gather(sending, answering)


async def test_what_nobody_reads_is_not_hoarded(linked: Linked) -> None:
    """The writer waits: sockets' buffers and one read in each pump are all that lies between."""
    sent = 0

    async def write_without_end() -> None:
        nonlocal sent
        while sent < 64 * 1024 * 1024:
            async with asyncio.timeout(1.0):
                await asyncio.get_running_loop().sock_sendall(linked.host, bytes(65536))
            sent += 65536

    with pytest.raises(TimeoutError):
        await write_without_end()
    assert sent < 4 * 1024 * 1024
    received = await asyncio.to_thread(linked.inside_receive, sent)
    assert len(received) >= sent


async def test_nothing_of_it_can_be_read_on_the_way(links: Links, make_inside: MakeInside) -> None:
    ours, middle_a = socket.socketpair()
    middle_b, theirs = socket.socketpair()
    seen = bytearray()

    def carry(source: socket.socket, target: socket.socket) -> None:
        while part := source.recv(65536):
            seen.extend(part)
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)

    carriers = [threading.Thread(target=carry, args=pair) for pair in ((middle_a, middle_b), (middle_b, middle_a))]
    for carrier in carriers:
        carrier.start()
    certificate = links.issue(PARROT)
    inside = make_inside(theirs, links.keys(certificate))
    host, link = await links.open(ours, certificate, plugin="parrot", version="1.0.0")
    host.setblocking(False)
    both = Linked(host, link, inside)
    await both.send(b"the secret of the house")
    assert await asyncio.to_thread(both.inside_receive, 23) == b"the secret of the house"
    host.close()
    await asyncio.to_thread(inside.plain.close)
    for carrier in carriers:
        await asyncio.to_thread(carrier.join, TIMEOUT_S)
    assert b"secret" not in seen
    assert b"parrot" not in seen, "the certificates are enciphered too"
    for sock in (middle_a, middle_b):
        sock.close()


async def test_one_half_may_end_while_the_other_goes_on(linked: Linked) -> None:
    await linked.send(b"the last question")
    linked.host.shutdown(socket.SHUT_WR)
    assert await asyncio.to_thread(linked.inside_receive) == b"the last question"
    await asyncio.to_thread(linked.inside.plain.sendall, b"the last answer")
    linked.inside.plain.shutdown(socket.SHUT_WR)
    assert await linked.receive() == b"the last answer"
    async with asyncio.timeout(TIMEOUT_S):
        await linked.link.closed


async def test_the_end_of_the_plugin_is_the_end_of_the_link(linked: Linked) -> None:
    await asyncio.to_thread(linked.inside.plain.sendall, b"farewell")
    linked.inside.plain.close()
    assert await linked.receive() == b"farewell"


async def test_the_last_words_of_a_process_are_passed_on_though_its_child_keeps_the_wire(linked: Linked) -> None:
    await asyncio.to_thread(linked.inside.plain.sendall, b"x" * 100_000)
    linked.inside.wake()  # another child's end: nothing changes by it
    linked.inside.gone()
    assert len(await linked.receive()) == 100_000
    linked.inside.join()


async def test_the_end_of_the_host_is_the_end_for_the_plugin(linked: Linked) -> None:
    linked.host.close()
    assert await asyncio.to_thread(linked.inside_receive) == b""
    linked.inside.plain.close()
    linked.inside.join()
    assert linked.inside.error is None


def _believe(_: ssl.SSLObject) -> None:
    """A host that asks nobody who they are."""


async def _refusal(links: Links, ours: socket.socket, certificate: Certificate) -> PluginFault:
    with pytest.raises(PluginFault, match="could not be linked") as caught:
        await links.open(ours, certificate, plugin="parrot", version="1.0.0")
    assert caught.value.code == "link_failed"
    return caught.value


async def test_another_instances_certificate_is_refused(links: Links, make_inside: MakeInside) -> None:
    ours, theirs = socket.socketpair()
    make_inside(theirs, links.keys(links.issue(InstanceId("magpie"))))
    fault = await _refusal(links, ours, links.issue(PARROT))
    assert "a certificate for cardcage://instance/magpie, not for cardcage://instance/parrot/loud" in fault.message


async def test_the_certificate_of_an_earlier_start_is_refused(links: Links, make_inside: MakeInside) -> None:
    ours, theirs = socket.socketpair()
    make_inside(theirs, links.keys(links.issue(PARROT)))
    assert "not issued for this start" in (await _refusal(links, ours, links.issue(PARROT))).message


async def test_a_certificate_of_another_authority_is_refused(
    links: Links, make_inside: MakeInside, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Links(Authority.open(tmp_path / "other"))
    certificate = links.issue(PARROT)
    foreign = other.keys(other.issue(PARROT))
    ours, theirs = socket.socketpair()
    keys = LinkKeys(ca_pem=links.keys(certificate).ca_pem, own_pem=foreign.own_pem)
    make_inside(theirs, keys)
    assert "certificate" in (await _refusal(links, ours, certificate)).message


async def test_one_who_shows_no_certificate_is_refused(links: Links, authority: Authority) -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(TIMEOUT_S)

    def come() -> None:
        context = ssl.create_default_context(cadata=authority.ca_pem.decode())
        with context.wrap_socket(theirs, server_hostname=HOST_NAME) as secure:
            secure.recv(1)

    coming = asyncio.create_task(asyncio.to_thread(come))
    fault = await _refusal(links, ours, links.issue(PARROT))
    assert "peer did not return a certificate" in fault.message
    with pytest.raises(ssl.SSLError):
        await coming


async def test_an_older_tls_is_refused(links: Links, authority: Authority) -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(TIMEOUT_S)
    certificate = links.issue(PARROT)

    def come() -> None:
        context = ssl.create_default_context(cadata=authority.ca_pem.decode())
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        certificate.load_into(context)
        with context.wrap_socket(theirs, server_hostname=HOST_NAME):
            raise AssertionError("the handshake was completed")

    coming = asyncio.create_task(asyncio.to_thread(come))
    assert "unsupported protocol" in (await _refusal(links, ours, certificate)).message
    with pytest.raises(ssl.SSLError):
        await coming


@pytest.mark.parametrize(
    "said", [b"", b"\x00" * 100, b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"A" * 70000]
)
async def test_one_who_speaks_no_tls_is_refused(links: Links, said: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(TIMEOUT_S)

    def come() -> None:
        with theirs:
            theirs.sendall(said)

    coming = asyncio.create_task(asyncio.to_thread(come))
    await _refusal(links, ours, links.issue(PARROT))
    await asyncio.gather(coming, return_exceptions=True)


async def test_a_host_that_is_another_is_refused_by_the_plugins_side(
    authority: Authority, links: Links, make_inside: MakeInside
) -> None:
    """Even one whose certificate is of the same authority, such as that of another instance."""
    ours, theirs = socket.socketpair()
    inside = make_inside(theirs, links.keys(links.issue(PARROT)))
    impostor = authority.issue("i", server=True, client=True, names=("elsewhere.internal",))
    context = host_context(authority.ca_pem.decode(), impostor.cert_pem + impostor.key_pem)
    plain, far = socket.socketpair()
    link = Link(ours, plain, context, _believe)
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.wait({link.secure, link.closed})
        await link.closed
    inside.join()
    assert inside.error is not None
    assert "Hostname mismatch" in str(inside.error)
    assert far.recv(1) == b""
    far.close()


async def test_a_changed_byte_ends_the_link(links: Links, make_inside: MakeInside) -> None:
    ours, middle_a = socket.socketpair()
    middle_b, theirs = socket.socketpair()
    spoil = threading.Event()

    def carry(source: socket.socket, target: socket.socket, spoils: bool) -> None:
        try:
            while part := source.recv(65536):
                target.sendall(part[:-1] + bytes([part[-1] ^ 1]) if spoils and spoil.is_set() else part)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    carriers = [
        threading.Thread(target=carry, args=(middle_a, middle_b, False)),
        threading.Thread(target=carry, args=(middle_b, middle_a, True)),
    ]
    for carrier in carriers:
        carrier.start()
    certificate = links.issue(PARROT)
    inside = make_inside(theirs, links.keys(certificate))
    host, link = await links.open(ours, certificate, plugin="parrot", version="1.0.0")
    host.setblocking(False)
    spoil.set()
    await asyncio.to_thread(inside.plain.sendall, b"pay ten to Ada")
    assert await Linked(host, link, inside).receive() == b""
    assert link.closed.done()
    host.close()
    inside.plain.close()
    for carrier in carriers:
        await asyncio.to_thread(carrier.join, TIMEOUT_S)
    for sock in (middle_a, middle_b):
        sock.close()


async def test_a_cancelled_opening_leaves_no_descriptor(links: Links) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = socket.socketpair()
    opening = asyncio.create_task(links.open(ours, links.issue(PARROT), plugin="parrot", version="1.0.0"))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    theirs.close()
    assert len(os.listdir("/proc/self/fd")) == before


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["a sends", "b sends", "a steps", "b steps", "a reads", "b reads"]), st.integers(1, 90_000)
        ),
        max_size=60,
    )
)
def test_whatever_the_order_of_steps_bytes_arrive_in_order(
    steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority = _shared_authority(tmp_path_factory)
    own, instance = (
        authority.issue("host", server=True, client=False, names=(HOST_NAME,)),
        authority.issue("parrot", server=False, client=True),
    )
    ca = authority.ca_pem.decode()
    streams, a_plain, b_plain = socket.socketpair(), socket.socketpair(), socket.socketpair()
    pumps = {
        "a": SecurePump(a_plain[1], streams[0].fileno(), host_context(ca, own.cert_pem + own.key_pem), server=True),
        "b": SecurePump(
            b_plain[1],
            streams[1].fileno(),
            instance_context(ca, instance.cert_pem + instance.key_pem),
            server=False,
        ),
    }
    ends = {"a": a_plain[0], "b": b_plain[0]}
    for end in ends.values():
        end.setblocking(False)
    sent, received = {"a": bytearray(), "b": bytearray()}, {"a": bytearray(), "b": bytearray()}

    def act(who: str, what: str, size: int) -> None:
        if what == "sends":
            try:
                data = os.urandom(size)
                sent[who].extend(data[: ends[who].send(data)])
            except BlockingIOError:
                pass
        elif what == "reads":
            try:
                received[who].extend(ends[who].recv(size))
            except BlockingIOError:
                pass
        else:
            pumps[who].step(*pumps[who].wanted())

    for step, size in steps:
        who, _, what = step.partition(" ")
        act(who, what, size)
    for _ in range(2000):
        for who in ("a", "b"):
            act(who, "steps", 0)
            act(who, "reads", 1 << 20)
        if received["a"] == sent["b"] and received["b"] == sent["a"]:
            break
    assert received["a"] == sent["b"]
    assert received["b"] == sent["a"]
    for sock in (*streams, *a_plain, *b_plain):
        sock.close()


_kept: list[Authority] = []


def _shared_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if not _kept:
        _kept.append(Authority.open(tmp_path_factory.mktemp("authority")))
    return _kept[0]
