"""Turning a credential and its secrets into headers of one request."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from cardcage.egress.http import Headers
from cardcage.foundation.errors import Refused
from cardcage.permissions.credentials import AwsCredential, BasicCredential, Credential, HeaderCredential

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
"""A signature over a body needs the whole body first. The requests of cloud APIs are far smaller."""


class Signer(Protocol):
    """Makes the headers that a credential adds."""

    @property
    def needs_body(self) -> bool:
        """Whether the body must be known to the last byte before the headers can be made."""
        ...

    def headers(self, method: bytes, url: str, headers: Headers, body: bytes | None) -> Headers:
        """The headers to add to a request for `url` that has `headers` already."""
        ...


class FixedSigner:
    """The same header each time."""

    needs_body = False

    def __init__(self, name: str, value: str) -> None:
        self._header = (name.lower().encode("ascii"), value.encode("ascii"))

    def headers(self, method: bytes, url: str, headers: Headers, body: bytes | None) -> Headers:
        return [self._header]


def make_signer(credential: Credential, secret: Callable[[str], str]) -> Signer:
    """The signer of a credential; `secret` gives a value by its name.

    Raises `Refused` where a secret cannot stand in a header, or where AWS signatures are asked for and botocore is not
    installed.
    """
    values = {name: _printable(name, secret(name)) for name in credential.secrets}
    match credential.how:
        case HeaderCredential(header=header, secret=name, format=form):
            _check_ends(name, values[name])
            return FixedSigner(header, form.replace("{secret}", values[name]))
        case BasicCredential(user=user, password=name):
            pair = base64.b64encode(f"{user}:{values[name]}".encode()).decode()
            return FixedSigner("Authorization", f"Basic {pair}")
        case AwsCredential() as aws:
            for name in aws.secrets:
                _check_ends(name, values[name])
            return _aws_signer(credential.endpoint, aws, values)


def _printable(name: str, value: str) -> str:
    if not value or not value.isascii() or not value.isprintable():
        raise Refused(
            f"secret {name} cannot stand in a header: it is empty, or holds characters other than printable ASCII",
            code="secret_unusable",
            hint="a line end at the end of a secret's file is taken off; others are not",
        )
    return value


def _check_ends(name: str, value: str) -> None:
    if value != value.strip():
        raise Refused(
            f"secret {name} cannot stand in a header: it begins or ends with a space",
            code="secret_unusable",
            hint="write it anew without the space",
        )


def _aws_signer(endpoint: str, aws: AwsCredential, values: Mapping[str, str]) -> Signer:
    try:
        from cardcage.egress.sigv4 import AwsSigner
    except ImportError:
        raise Refused(
            f"requests to {endpoint} are to carry an AWS signature, which takes botocore, and that is not installed",
            code="extra_missing",
            hint="pip install 'cardcage[aws]'",
        ) from None
    token = values[aws.session_token] if aws.session_token else None
    return AwsSigner(aws, values[aws.access_key], values[aws.secret_key], token)
