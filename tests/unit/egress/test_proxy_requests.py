"""What the proxy makes of the bytes that a plugin sends it."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage.egress.heads import HEAD_BYTES_MAX, BadHead, read_head
from cardcage.egress.http import end_to_end
from cardcage.egress.proxy import Asked, parse_request


def asked(line: str) -> Asked:
    return parse_request(f"{line}\r\nHost: x\r\n\r\n".encode("latin-1"))[2]


def test_a_tunnel_and_an_absolute_address_say_where_they_lead() -> None:
    assert asked("CONNECT api.test:443 HTTP/1.1") == Asked("api.test", 443, tunnel=True)
    assert asked("CONNECT [2001:db8::1]:443 HTTP/1.1") == Asked("2001:db8::1", 443, tunnel=True)
    assert asked("GET http://api.test/a?b=c HTTP/1.1") == Asked("api.test", 80, tunnel=False, path=b"/a?b=c")
    assert asked("GET http://api.test:8080 HTTP/1.1") == Asked("api.test", 8080, tunnel=False, path=b"/")


@pytest.mark.parametrize(
    "line",
    [
        "GET / HTTP/1.1",
        "CONNECT api.test HTTP/1.1",
        "CONNECT :443 HTTP/1.1",
        "CONNECT api.test:https HTTP/1.1",
        "CONNECT api.test:999999 HTTP/1.1",
        "GET https://api.test/ HTTP/1.1",
        "GET file:///etc/passwd HTTP/1.1",
        "GET http://user:secret@api.test/ HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET http://api.test:port/ HTTP/1.1",
        "GET http://[::1/ HTTP/1.1",
        "hello",
        "",
    ],
)
def test_whatever_else_is_refused(line: str) -> None:
    with pytest.raises(BadHead):
        asked(line)


@given(st.binary(max_size=400))
def test_no_bytes_break_the_parser(head: bytes) -> None:
    try:
        _, _, found = parse_request(head + b"\r\n\r\n")
    except BadHead:
        return
    assert found.host
    assert 0 <= found.port <= 99999


lines = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=60)


@given(st.sampled_from(["GET", "POST", "CONNECT", "HEAD"]), lines, st.lists(st.tuples(lines, lines), max_size=4))
def test_nothing_of_a_request_can_start_another_line_of_its_own(
    method: str, target: str, headers: list[tuple[str, str]]
) -> None:
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
    try:
        _, request, found = parse_request(head.encode("latin-1") + b"\r\n")
    except BadHead:
        return
    for text in (found.path, *(part for pair in request.headers for part in pair)):
        assert not set(text) & set(b"\r\n\0")


async def test_a_head_is_read_to_its_end_and_what_follows_is_left() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        reading = asyncio.ensure_future(read_head(ours))
        for piece in (b"GET / HTTP/1.1\r\nA: ", b"b\r", b"\n", b"\r", b"\nthe body"):
            await asyncio.get_running_loop().run_in_executor(None, theirs.sendall, piece)
        assert await reading == b"GET / HTTP/1.1\r\nA: b\r\n\r\n"
        assert ours.recv(100) == b"the body"


async def test_a_head_that_does_not_end_is_not_read_for_ever() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        reading = asyncio.ensure_future(read_head(ours))
        sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(theirs, b"x" * (4 * HEAD_BYTES_MAX)))
        with pytest.raises(BadHead, match="longer than"):
            await reading
        sending.cancel()


def test_headers_about_one_connection_stay_there() -> None:
    given_headers = [
        (b"connection", b"close, X-Mine"),
        (b"x-mine", b"1"),
        (b"keep-alive", b"5"),
        (b"proxy-authorization", b"Basic x"),
        (b"te", b"trailers"),
        (b"content-length", b"3"),
        (b"x-kept", b"2"),
    ]
    assert end_to_end(given_headers) == [(b"content-length", b"3"), (b"x-kept", b"2")]
