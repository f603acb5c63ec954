"""AWS signatures of version 4, made by botocore, which is an extra: imported only where a credential asks for one."""

from __future__ import annotations

import re
from typing import Any, Final

from botocore.auth import S3SigV4Auth, SigV4Auth  # pyright: ignore[reportMissingTypeStubs]
from botocore.awsrequest import AWSRequest  # pyright: ignore[reportMissingTypeStubs]
from botocore.credentials import Credentials  # pyright: ignore[reportMissingTypeStubs]

from cardcage.egress.http import Headers
from cardcage.permissions.credentials import AwsCredential

_CONTENT_HASH: Final = b"x-amz-content-sha256"
_UNSIGNED: Final = b"UNSIGNED-PAYLOAD"
_STREAMED: Final = b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_SHA256: Final = re.compile(rb"[0-9a-f]{64}")
_SIGNED_TOO: Final = re.compile(rb"x-amz-.*|content-type|content-md5|host")
_ADDED: Final = ("authorization", "x-amz-date", "x-amz-security-token")


class _ObjectStoreAuth(S3SigV4Auth):
    """S3's rules for paths, with the hash of the body as the header gives it."""

    def _modify_request_before_signing(self, request: Any) -> None:
        given = request.headers[_CONTENT_HASH.decode()]
        super()._modify_request_before_signing(request)  # pyright: ignore[reportUnknownMemberType]
        del request.headers[_CONTENT_HASH.decode()]
        request.headers[_CONTENT_HASH.decode()] = given


class AwsSigner:
    """Signs requests for one service in one region.

    S3 checks a body against the hash that its own header gives, so there no body is held; elsewhere the signature is
    over the body, which must be there whole.
    """

    def __init__(self, aws: AwsCredential, access_key: str, secret_key: str, token: str | None) -> None:
        credentials = Credentials(access_key, secret_key, token)
        self._is_s3 = aws.service == "s3"
        self.needs_body = not self._is_s3
        auth: Any = _ObjectStoreAuth if self._is_s3 else SigV4Auth
        self._auth = auth(credentials, aws.service, aws.region)

    def headers(self, method: bytes, url: str, headers: Headers, body: bytes | None) -> Headers:
        """The headers to add; for S3 the hash of the body is among them where the client gave none that can stay."""
        signed = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in headers if _SIGNED_TOO.fullmatch(name)
        }
        added: list[str] = list(_ADDED)
        if self._is_s3 and not _keeps_hash(headers):
            signed[_CONTENT_HASH.decode()] = _UNSIGNED.decode()
            added.append(_CONTENT_HASH.decode())
        request: Any = AWSRequest(method=method.decode("ascii"), url=url, headers=signed, data=body or b"")
        self._auth.add_auth(request)
        return [
            (name.encode("ascii"), str(request.headers[name]).encode("ascii"))
            for name in added
            if request.headers.get(name) is not None
        ]


def _keeps_hash(headers: Headers) -> bool:
    """Whether the client's own statement about its body holds under any signature."""
    value = next((value for name, value in headers if name == _CONTENT_HASH), b"")
    return value in (_UNSIGNED, _STREAMED) or _SHA256.fullmatch(value) is not None
