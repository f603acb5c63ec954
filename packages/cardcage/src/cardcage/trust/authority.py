"""The manager's own certificate authority: one P-256 key in the state folder, and short-lived certificates from it.

It vouches for two things and nothing else: that a link to a container or a virtual machine ends at the instance it is
for, and that a TLS connection which a plugin makes and the host terminates ends at the host. No other program has a
reason to trust it, and it is never put where one would.

Why P-256: every TLS library of the last ten years verifies it, which cannot be said of Ed25519, and a key with its
certificate takes a third of a millisecond. Extensions follow RFC 5280, as OpenSSL's strict checks want them.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import ssl
import stat
import tempfile
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cardcage.foundation.errors import Misuse
from cardcage_sdk.secure import load_certificate

AUTHORITY_FILE: Final = "authority.pem"
"""Key and certificate in one file, so that there is never one without the other."""

AUTHORITY_LIFETIME: Final = timedelta(days=5 * 365)
AUTHORITY_REST: Final = timedelta(days=60)
"""An authority that ends sooner than this is replaced when it is opened: what trusts it is told at each start."""

LIFETIME: Final = timedelta(hours=24)
"""Of a leaf. A connection goes on when its certificate ends, so this only bounds how long a stolen key is of use."""

LIFETIME_MAX: Final = timedelta(days=30)
SKEW: Final = timedelta(hours=1)
"""How far behind the other side's clock may be: a virtual machine reads its own at boot, and zones get mistaken."""

FILE_BYTES_MAX: Final = 16 * 1024
COMMON_NAME_CHARS_MAX: Final = 64
"""X.520 allows no more. Whoever checks an identity reads the subject alternative names, where all of it stands."""


def now_utc() -> datetime:
    """The time of day, as certificates reckon it."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A leaf with its private key, for the names in `names` (hosts, addresses, URIs)."""

    name: str
    cert_pem: bytes
    key_pem: bytes = field(repr=False)
    server: bool
    client: bool
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    lifetime: timedelta

    def is_due(self, now: datetime) -> bool:
        """Whether two thirds of its time are over (or its clock was set back), so that a new one should be issued."""
        return not self.not_before <= now < self.not_after - self.lifetime / 3

    def load_into(self, context: ssl.SSLContext) -> None:
        """Make this the certificate that `context` shows. The key touches no disk where the system has memory files."""
        load_certificate(context, self.cert_pem + self.key_pem)


class Authority:
    """Issues certificates. Made by `Authority.open`."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, cert: x509.Certificate, now: Callable[[], datetime]) -> None:
        self._key = key
        self._cert = cert
        self._now = now
        self.ca_pem: bytes = cert.public_bytes(serialization.Encoding.PEM)
        """The authority's own certificate: what the other side is told to trust."""

    @classmethod
    def open(cls, folder: Path, *, now: Callable[[], datetime] = now_utc) -> Authority:
        """The authority kept in `folder`, made where there is none yet or where the old one is about to end.

        Raises `Misuse` with code `authority_unsafe` where others could have read or changed the key, with
        `authority_unusable` where the file cannot be used, and with `clock_wrong` where it lies in the future.
        """
        path = folder / AUTHORITY_FILE
        try:
            with _locked(folder):
                kept = _read(path)
                if kept is not None:
                    key, cert = _parse(path, kept)
                    _check_clock(path, cert, now())
                    if cert.not_valid_after_utc - now() > AUTHORITY_REST:
                        return cls(key, cert, now)
                key = ec.generate_private_key(ec.SECP256R1())
                cert = _self_signed(key, now())
                _write(path, _key_pem(key) + cert.public_bytes(serialization.Encoding.PEM))
        except OSError as error:
            raise Misuse(
                f"the certificate authority {path} cannot be used: {error.strerror}", code="authority_unusable"
            ) from error
        return cls(key, cert, now)

    @classmethod
    def ephemeral(cls, *, now: Callable[[], datetime] = now_utc) -> Authority:
        """One that is kept nowhere and ends with this process: what trusts it is told at each start anyway."""
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(key, _self_signed(key, now()), now)

    def issue(
        self, name: str, *, server: bool, client: bool, names: Iterable[str] = (), lifetime: timedelta = LIFETIME
    ) -> Certificate:
        """A new key and a certificate for it, good as a server's, as a client's or as both.

        `names` are what it vouches for: host names (`*.example.com` too), IP addresses, or URIs; where there are none
        it is `name`, which is also shown to people as the common name. `lifetime` is at most 30 days. Raises `Misuse`.
        """
        vouched = tuple(dict.fromkeys(names)) or (name,)
        _check_asked(name, server=server, client=client, lifetime=lifetime)
        key, now = ec.generate_private_key(ec.SECP256R1()), self._now()
        ends = min(now + lifetime, self._cert.not_valid_after_utc)
        begins = max(now - SKEW, self._cert.not_valid_before_utc)
        builder = _builder(name, self._cert.subject, key.public_key(), begins, ends)
        issuer = self._cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
        cert = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(one) for one in vouched]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Certificate(
            name=name,
            cert_pem=cert.public_bytes(serialization.Encoding.PEM),
            key_pem=_key_pem(key),
            server=server,
            client=client,
            names=vouched,
            not_before=cert.not_valid_before_utc,
            not_after=cert.not_valid_after_utc,
            lifetime=lifetime,
        )

    def renew(self, certificate: Certificate) -> Certificate:
        """The same certificate where much of its time is left, else a new one, with a new key, for the same names."""
        if not certificate.is_due(self._now()):
            return certificate
        return self.issue(
            certificate.name,
            server=certificate.server,
            client=certificate.client,
            names=certificate.names,
            lifetime=certificate.lifetime,
        )


def _check_asked(name: str, *, server: bool, client: bool, lifetime: timedelta) -> None:
    if not (server or client):
        raise Misuse(
            f"the certificate for {name} was asked for neither a server nor a client", code="certificate_invalid"
        )
    if not timedelta(minutes=1) <= lifetime <= LIFETIME_MAX:
        raise Misuse(
            f"the certificate for {name} was asked for {lifetime}, but one lives for a minute at least and "
            f"for {LIFETIME_MAX.days} days at most",
            code="certificate_invalid",
        )


def _self_signed(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    # Each has a name of its own, or a client that knows an older one would look for this one's signatures under it.
    subject = f"Cardcage {os.urandom(6).hex()}"
    builder = _builder(subject, _name(subject), key.public_key(), now - SKEW, now + AUTHORITY_LIFETIME)
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _builder(
    subject: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:COMMON_NAME_CHARS_MAX])])


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(text: str) -> x509.GeneralName:
    try:
        if "://" in text:
            return x509.UniformResourceIdentifier(text)
        try:
            return x509.IPAddress(ipaddress.ip_address(text))
        except ValueError:
            return x509.DNSName(text)
    except ValueError as error:
        raise Misuse(
            f"a certificate cannot name {text!r}: expected a host, an address or a URI in ASCII",
            code="certificate_invalid",
        ) from error


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Alone in the folder: two hosts that start at once must not each make an authority."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes | None:
    """The file's bytes, or None where there is none. Who could open it is asked of the open file, not of the path."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > FILE_BYTES_MAX:
            raise _unusable(path, f"expected a file of at most {FILE_BYTES_MAX} bytes")
        if about.st_uid != os.geteuid():
            raise _unsafe(path, f"it belongs to user {about.st_uid}, but this is user {os.geteuid()}")
        if mode := stat.S_IMODE(about.st_mode) & 0o077:
            raise _unsafe(path, f"others may use it (mode {stat.S_IMODE(about.st_mode):04o}, {mode:03o} too much)")
        return file.read(FILE_BYTES_MAX)


def _parse(path: Path, content: bytes) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key(content, None)
        cert = x509.load_pem_x509_certificate(content)
        authority = cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise _unusable(path, "it does not hold a key and a certificate") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != cert.public_key() or not authority:
        raise _unusable(path, "its key is not the one of its certificate")
    return key, cert


def _check_clock(path: Path, cert: x509.Certificate, now: datetime) -> None:
    if now < cert.not_valid_before_utc:
        raise Misuse(
            f"the certificate authority {path} is valid from {cert.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, but this "
            f"machine's clock says {now:%Y-%m-%d %H:%M}",
            code="clock_wrong",
            hint="set the clock; or, if the file was made under a wrong one, remove it: a new one will be made",
        )


def _unusable(path: Path, reason: str) -> Misuse:
    return Misuse(
        f"the certificate authority {path} cannot be used: {reason}",
        code="authority_unusable",
        hint="remove it: a new one will be made",
    )


def _unsafe(path: Path, reason: str) -> Misuse:
    return Misuse(
        f"the certificate authority {path} is not safe: {reason}",
        code="authority_unsafe",
        hint="remove it, since its key may be known: a new one will be made",
    )


def _write(path: Path, content: bytes) -> None:
    """Put the file there whole, or not at all."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600 from the start
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
