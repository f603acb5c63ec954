"""The manager's own certificate authority: its file, what it issues, and that others' verifiers agree."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from cryptography import x509

from cardcage.foundation.errors import Misuse
from cardcage.trust.authority import (
    AUTHORITY_FILE,
    AUTHORITY_LIFETIME,
    LIFETIME,
    SKEW,
    Authority,
    Certificate,
    now_utc,
)

TIMEOUT_S = 20.0


class Clock:
    """A time of day that tests move."""

    def __init__(self) -> None:
        self.now = datetime(2030, 5, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path)


def context(authority: Authority, own: Certificate | None, *, server: bool) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_verify_locations(cadata=authority.ca_pem.decode())
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    if own is not None:
        own.load_into(made)
    return made


@contextmanager
def https_server(context: ssl.SSLContext) -> Generator[int]:
    """A server on the loopback that answers every request with `vouched for`, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                plain.settimeout(TIMEOUT_S)
                try:
                    with context.wrap_socket(plain, server_side=True) as secure:
                        secure.recv(65536)
                        secure.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 11\r\n\r\nvouched for")
                except OSError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(TIMEOUT_S)


def test_the_file_can_be_read_by_its_owner_alone_and_is_the_same_when_opened_again(tmp_path: Path) -> None:
    first = Authority.open(tmp_path)
    assert stat.S_IMODE((tmp_path / AUTHORITY_FILE).stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == [AUTHORITY_FILE]
    assert Authority.open(tmp_path).ca_pem == first.ca_pem


def test_many_that_open_it_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(Authority.open, [tmp_path] * 8))
    assert len({authority.ca_pem for authority in opened}) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    Authority.open(tmp_path)
    (tmp_path / AUTHORITY_FILE).chmod(mode)
    with pytest.raises(Misuse, match=f"mode {mode:04o}") as caught:
        Authority.open(tmp_path)
    assert caught.value.code == "authority_unsafe"


@pytest.mark.skipif(os.geteuid() != 0, reason="must run as root: only it can give files away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    Authority.open(tmp_path)
    os.chown(tmp_path / AUTHORITY_FILE, 65_500, 65_500)
    with pytest.raises(Misuse, match="belongs to user 65500") as caught:
        Authority.open(tmp_path)
    assert caught.value.code == "authority_unsafe"


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Authority.open(tmp_path / "elsewhere")
    (tmp_path / AUTHORITY_FILE).symlink_to(tmp_path / "elsewhere" / AUTHORITY_FILE)
    with pytest.raises(Misuse, match="cannot be used"):
        Authority.open(tmp_path)


@pytest.mark.parametrize("spoil", ["empty", "half", "another key", "a leaf", "huge"])
def test_a_damaged_file_is_refused_and_not_replaced(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / AUTHORITY_FILE
    authority = Authority.open(tmp_path)
    leaf = authority.issue("leaf", server=True, client=False)
    content = {
        "empty": b"",
        "half": path.read_bytes()[:100],
        "another key": leaf.key_pem + authority.ca_pem,
        "a leaf": leaf.key_pem + leaf.cert_pem,
        "huge": path.read_bytes() * 100,
    }[spoil]
    path.write_bytes(content)
    with pytest.raises(Misuse, match="cannot be used") as caught:
        Authority.open(tmp_path)
    assert caught.value.code == "authority_unusable"
    assert path.read_bytes() == content


def test_one_that_is_about_to_end_is_replaced_when_it_is_opened(tmp_path: Path) -> None:
    clock = Clock()
    first = Authority.open(tmp_path, now=clock).ca_pem
    clock.now += AUTHORITY_LIFETIME - timedelta(days=70)
    assert Authority.open(tmp_path, now=clock).ca_pem == first
    clock.now += timedelta(days=20)
    assert Authority.open(tmp_path, now=clock).ca_pem != first


def test_a_clock_before_its_beginning_is_told(tmp_path: Path) -> None:
    clock = Clock()
    Authority.open(tmp_path, now=clock)
    clock.now -= SKEW + timedelta(minutes=1)
    with pytest.raises(Misuse, match="2030-05-01 11:00") as caught:
        Authority.open(tmp_path, now=clock)
    assert caught.value.code == "clock_wrong"


def test_a_leaf_says_what_it_is_for_and_lives_shortly(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority.open(tmp_path, now=clock)
    leaf = authority.issue("api", server=True, client=False, names=("api.example.com", "192.0.2.7", "cardcage://x"))
    cert = x509.load_pem_x509_certificate(leaf.cert_pem)
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["api.example.com", "192.0.2.7", "cardcage://x"]
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert cert.not_valid_before_utc == clock.now - SKEW
    assert cert.not_valid_after_utc == clock.now + LIFETIME
    issuer = x509.load_pem_x509_certificate(authority.ca_pem)
    cert.verify_directly_issued_by(issuer)


def test_a_leaf_does_not_outlive_its_authority(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority.open(tmp_path, now=clock)
    clock.now += AUTHORITY_LIFETIME - timedelta(hours=3)
    leaf = authority.issue("late", server=True, client=False)
    assert leaf.not_after == x509.load_pem_x509_certificate(authority.ca_pem).not_valid_after_utc


def test_a_leaf_is_renewed_when_two_thirds_of_its_time_are_over(tmp_path: Path) -> None:
    clock = Clock()
    authority = Authority.open(tmp_path, now=clock)
    first = authority.issue("a/b", server=False, client=True, names=("cardcage://instance/a/b",))
    clock.now += LIFETIME * 0.6
    assert authority.renew(first) is first
    clock.now += LIFETIME * 0.1
    second = authority.renew(first)
    assert (second.name, second.names, second.client, second.server) == (first.name, first.names, True, False)
    assert second.key_pem != first.key_pem
    assert second.not_after > first.not_after


@pytest.mark.parametrize(
    ("server", "lifetime", "names", "match"),
    [
        (False, LIFETIME, (), "neither"),
        (True, timedelta(days=31), (), "30 days"),
        (True, timedelta(0), (), "a minute"),
        (True, LIFETIME, ("bücher.example",), "bücher.example"),
    ],
)
def test_what_cannot_be_issued_is_said(
    authority: Authority, server: bool, lifetime: timedelta, names: tuple[str, ...], match: str
) -> None:
    with pytest.raises(Misuse, match=match) as caught:
        authority.issue("x", server=server, client=False, lifetime=lifetime, names=names)
    assert caught.value.code == "certificate_invalid"


def test_a_private_key_is_not_shown_in_messages(authority: Authority) -> None:
    assert "PRIVATE" not in repr(authority.issue("x", server=True, client=False))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_requests_accepts_a_server_that_it_vouches_for(authority: Authority, tmp_path: Path, host: str) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.ca_pem)
    leaf = authority.issue("server", server=True, client=False, names=("localhost", "127.0.0.1"))
    with https_server(context(authority, leaf, server=True)) as port:
        url = f"https://{host}:{port}/"
        assert requests.get(url, verify=str(tmp_path / "ca.pem"), timeout=TIMEOUT_S).text == "vouched for"
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url, timeout=TIMEOUT_S)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_accepts_a_server_that_it_vouches_for(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(authority.ca_pem)
    leaf = authority.issue("server", server=True, client=False, names=("localhost",))
    with https_server(context(authority, leaf, server=True)) as port:
        command = ["curl", "-sS", "--tlsv1.3", "--cacert", str(tmp_path / "ca.pem"), f"https://localhost:{port}/"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.stdout == "vouched for", done.stderr


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, hostname: str | None) -> str | None:
    """A handshake in memory, to its end on both sides."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=hostname),
    ]
    done: set[int] = set()
    for _ in range(10):
        for place, end in enumerate(ends):
            try:
                end.do_handshake()
                done.add(place)
            except ssl.SSLWantReadError:
                continue
    assert done == {0, 1}
    return ends[1].version()


def test_both_sides_can_prove_themselves_under_tls_1_3(authority: Authority) -> None:
    server = context(authority, authority.issue("s", server=True, client=False, names=("host",)), server=True)
    client = context(authority, authority.issue("c", server=False, client=True), server=False)
    server.verify_mode = ssl.CERT_REQUIRED
    assert _shake_hands(server, client, "host") == "TLSv1.3"


def test_a_clients_certificate_does_not_make_a_server(authority: Authority) -> None:
    server = context(authority, authority.issue("s", server=False, client=True, names=("host",)), server=True)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unsuitable|unsupported"):
        _shake_hands(server, context(authority, None, server=False), "host")


def test_a_certificate_of_another_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority.open(tmp_path / "other")
    server = context(authority, other.issue("s", server=True, client=False, names=("host",)), server=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        _shake_hands(server, context(authority, None, server=False), "host")


def test_the_time_of_day_is_utc() -> None:
    assert now_utc().utcoffset() == timedelta(0)
