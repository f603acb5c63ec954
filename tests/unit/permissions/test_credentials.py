"""What an operator writes about credentials."""

from __future__ import annotations

from typing import Any

import pytest

from cardcage.foundation.errors import InvalidDocument
from cardcage.permissions.credentials import (
    AwsCredential,
    BasicCredential,
    Credential,
    HeaderCredential,
    parse_credentials,
)

AWS = {"region": "us-east-1", "service": "ec2", "access_key": "ID", "secret_key": "KEY"}


def parse(*documents: Any) -> tuple[Credential, ...]:
    return parse_credentials(documents, subject="the list")


def test_each_way_of_adding_a_credential_is_read() -> None:
    parsed = parse(
        {"endpoint": "API.example.com:443", "bearer": "TOKEN"},
        {"endpoint": "https://b.test", "header": "X-Key", "secret": "KEY", "format": "key={secret}"},
        {"endpoint": "c.test:80", "basic": {"user": "ada", "password": "PASSWORD"}, "tls": False},
        {"endpoint": "d.test:443", "aws": {**AWS, "session_token": "SESSION"}},
    )
    assert [each.how for each in parsed] == [
        HeaderCredential(header="Authorization", secret="TOKEN", format="Bearer {secret}"),
        HeaderCredential(header="X-Key", secret="KEY", format="key={secret}"),
        BasicCredential(user="ada", password="PASSWORD"),
        AwsCredential(region="us-east-1", service="ec2", access_key="ID", secret_key="KEY", session_token="SESSION"),
    ]
    assert [each.endpoint for each in parsed] == ["api.example.com:443", "b.test:443", "c.test:80", "d.test:443"]
    assert [each.tls for each in parsed] == [True, True, False, True]
    assert parsed[3].secrets == ("ID", "KEY", "SESSION")
    assert parsed[1].headers == ("x-key",)
    assert "authorization" in parsed[3].headers


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ("API_TOKEN", "credentials[0]"),
        ({"endpoint": "a.test:443"}, "credentials[0]"),
        ({"endpoint": "a.test:443", "bearer": "A", "basic": {"user": "x", "password": "P"}}, "credentials[0]"),
        ({"endpoint": "*.a.test:443", "bearer": "A"}, "credentials[0].endpoint"),
        ({"endpoint": "10.0.0.0/8:443", "bearer": "A"}, "credentials[0].endpoint"),
        ({"endpoint": "a.test:1-2", "bearer": "A"}, "credentials[0].endpoint"),
        ({"endpoint": "a.test", "bearer": "A"}, "credentials[0].endpoint"),
        ({"endpoint": "a.test:443", "bearer": "a b"}, "credentials[0].bearer"),
        ({"endpoint": "a.test:443", "bearer": "A", "tls": "no"}, "credentials[0].tls"),
        ({"endpoint": "a.test:443", "bearer": "A", "colour": "red"}, "credentials[0].colour"),
        ({"endpoint": "a.test:443", "header": "Host", "secret": "A"}, "credentials[0].header"),
        ({"endpoint": "a.test:443", "header": "X Y", "secret": "A"}, "credentials[0].header"),
        ({"endpoint": "a.test:443", "header": "X", "secret": "A", "format": "none"}, "credentials[0].format"),
        ({"endpoint": "a.test:443", "header": "X", "secret": "A", "format": "{secret}\n"}, "credentials[0].format"),
        ({"endpoint": "a.test:443", "basic": {"user": "a:b", "password": "P"}}, "credentials[0].basic.user"),
        ({"endpoint": "a.test:443", "aws": {**AWS, "region": "U S"}}, "credentials[0].aws.region"),
        ({"endpoint": "a.test:443", "aws": {**AWS, "profile": "x"}}, "credentials[0].aws.profile"),
    ],
)
def test_a_fault_is_told_with_its_place(document: Any, path: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        parse(document)
    assert [fault.path for fault in refused.value.faults] == [path]


@pytest.mark.parametrize(
    "document",
    [
        {"endpoint": "a.test:443", "bearer": "sk-live/1234567890=="},
        {"endpoint": "a.test:443", "header": "X-Key", "secret": "KEY", "format": "token 1234567890"},
        {"endpoint": "a.test:443", "header": "X-Key: 1234567890", "secret": "KEY"},
        {"endpoint": "https://ada:1234567890@a.test", "bearer": "TOKEN"},
        {"endpoint": "https://ada:1234567890@a.test:port", "bearer": "TOKEN"},
        {"endpoint": "gopher://ada:1234567890@a.test", "bearer": "TOKEN"},
    ],
)
def test_what_may_be_the_secret_itself_is_not_shown(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocument) as refused:
        parse(document)
    assert "1234567890" not in str(refused.value)


@pytest.mark.parametrize("form", ["{secret} ", " {secret}"])
def test_a_header_neither_begins_nor_ends_with_a_space(form: str) -> None:
    with pytest.raises(InvalidDocument, match="neither begins nor ends with a space"):
        parse({"endpoint": "a.test:443", "header": "X-Key", "secret": "KEY", "format": form})


def test_one_endpoint_has_one_credential() -> None:
    with pytest.raises(InvalidDocument, match="has a credential already"):
        parse({"endpoint": "a.test:443", "bearer": "A"}, {"endpoint": "A.test:443", "bearer": "B"})
