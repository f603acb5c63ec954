"""Headers made from credentials."""

from __future__ import annotations

import hashlib

import pytest

from cardcage.egress.signing import make_signer
from cardcage.foundation.errors import Refused
from cardcage.permissions.credentials import Credential, parse_credentials


def credential(**how: object) -> Credential:
    return parse_credentials([{"endpoint": "api.test:443", **how}], subject="the list")[0]


AWS = {"region": "eu-west-1", "access_key": "ID", "secret_key": "KEY", "session_token": "SESSION"}
SECRETS = {"TOKEN": "t0p", "ID": "AKIDEXAMPLE", "KEY": "wJalrXUtnFEMI", "SESSION": "a-session"}


def test_a_header_and_basic_authentication() -> None:
    signer = make_signer(credential(header="X-Key", secret="TOKEN", format="key {secret}"), SECRETS.__getitem__)
    assert signer.headers(b"GET", "https://api.test/", [], None) == [(b"x-key", b"key t0p")]
    basic = make_signer(credential(basic={"user": "ada", "password": "TOKEN"}), SECRETS.__getitem__)
    assert basic.headers(b"GET", "https://api.test/", [], None) == [(b"authorization", b"Basic YWRhOnQwcA==")]


@pytest.mark.parametrize("value", ["", "two\nlines", "tab\t", "grün", "null\0"])
def test_a_secret_that_would_break_a_header_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(Refused) as refused:
        make_signer(credential(bearer="TOKEN"), lambda name: value)
    assert refused.value.code == "secret_unusable"
    assert not value or value not in str(refused.value)


@pytest.mark.parametrize("how", [{"bearer": "TOKEN"}, {"header": "X-Key", "secret": "TOKEN"}])
@pytest.mark.parametrize("value", ["s3cr3t ", " s3cr3t"])
def test_a_secret_with_a_space_at_an_end_is_refused_before_any_request(how: dict[str, str], value: str) -> None:
    with pytest.raises(Refused) as refused:
        make_signer(credential(**how), lambda name: value)
    assert refused.value.code == "secret_unusable"
    assert "s3cr3t" not in str(refused.value)


def test_a_signature_for_a_service_is_over_the_whole_body() -> None:
    signer = make_signer(credential(aws={**AWS, "service": "ec2"}), SECRETS.__getitem__)
    assert signer.needs_body
    headers = dict(signer.headers(b"POST", "https://api.test/", [(b"host", b"api.test")], b"Action=X"))
    assert set(headers) == {b"authorization", b"x-amz-date", b"x-amz-security-token"}
    assert headers[b"authorization"].startswith(b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert b"/eu-west-1/ec2/aws4_request" in headers[b"authorization"]
    assert headers[b"x-amz-security-token"] == b"a-session"


def test_for_objects_the_clients_statement_about_the_body_stays_where_it_can() -> None:
    signer = make_signer(credential(aws={**AWS, "service": "s3"}), SECRETS.__getitem__)
    assert not signer.needs_body
    digest = hashlib.sha256(b"body").hexdigest().encode()
    for given in (b"UNSIGNED-PAYLOAD", b"STREAMING-UNSIGNED-PAYLOAD-TRAILER", digest):
        sent = [(b"host", b"api.test"), (b"x-amz-content-sha256", given)]
        assert b"x-amz-content-sha256" not in dict(signer.headers(b"PUT", "https://api.test/b/k", sent, None))
    added = dict(signer.headers(b"PUT", "https://api.test/b/k", [(b"host", b"api.test")], None))
    assert added[b"x-amz-content-sha256"] == b"UNSIGNED-PAYLOAD"
