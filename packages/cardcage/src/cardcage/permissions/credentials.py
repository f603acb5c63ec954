"""Credentials that the host adds to a plugin's requests, so that the plugin need never hold the secret. Pure.

An operator writes them beside the grants, one mapping for each endpoint:

    {endpoint: "api.example.com:443", bearer: API_TOKEN}
    {endpoint: "api.example.com:443", header: X-Api-Key, secret: API_KEY, format: "key {secret}"}
    {endpoint: "db.example.com:443", basic: {user: reports, password: DB_PASSWORD}}
    {endpoint: "ec2.us-east-1.amazonaws.com:443",
     aws: {region: us-east-1, service: ec2, access_key: AWS_ACCESS_KEY_ID, secret_key: AWS_SECRET_ACCESS_KEY}}

Secrets stand there by name alone. A manifest has no such thing: a plugin that could say where a secret goes could send
it to itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from cardcage.foundation.errors import Fault, InvalidDocument
from cardcage.permissions.network import Endpoint, parse_endpoint

_SECRET_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,199}")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_AWS_WORD: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_SLOT: Final = "{secret}"

RESERVED_HEADERS: Final = frozenset(
    {
        *("host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect"),
        *("keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"),
    }
)
"""Headers that say how a message is framed or where it goes: the relay writes them itself."""


class SecretSource(Protocol):
    """Where the values of secrets come from."""

    def secret(self, name: str) -> str:
        """The value of the secret called `name`. Raises `Refused` where there is none; never logs it."""
        ...

    def describe(self) -> str:
        """Where is looked, in words without values: for the error about a missing one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderCredential:
    """A header with the secret in it."""

    header: str
    secret: str
    format: str = _SLOT

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.secret,)


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicCredential:
    """HTTP basic authentication; `password` names the secret."""

    user: str
    password: str

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.password,)


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsCredential:
    """An AWS signature of version 4; the keys and the token name secrets."""

    region: str
    service: str
    access_key: str
    secret_key: str
    session_token: str | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        token = () if self.session_token is None else (self.session_token,)
        return (self.access_key, self.secret_key, *token)


How = HeaderCredential | BasicCredential | AwsCredential


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What the host adds to each request to one endpoint, and whether that endpoint speaks TLS."""

    endpoint: str
    """`api.example.com:443`: a name or an address and one port."""
    how: How
    tls: bool = True

    @property
    def secrets(self) -> tuple[str, ...]:
        """The names of the secrets that it takes."""
        return self.how.secrets

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers that it sets, in lower case: those of the plugin's own with these names are taken out."""
        match self.how:
            case HeaderCredential(header=header):
                return (header.lower(),)
            case BasicCredential():
                return ("authorization",)
            case AwsCredential():
                return ("authorization", "x-amz-date", "x-amz-security-token")


def parse_credentials(documents: Sequence[Any], *, subject: str) -> tuple[Credential, ...]:
    """The credentials that an operator wrote. Raises `InvalidDocument` with every fault."""
    faults: list[Fault] = []
    parsed: list[Credential] = []
    for index, document in enumerate(documents):
        place = f"credentials[{index}]"
        found = _Reader(document, place).credential()
        if isinstance(found, Credential):
            if any(found.endpoint == other.endpoint for other in parsed):
                faults.append(Fault(path=f"{place}.endpoint", message=f"{found.endpoint} has a credential already"))
            parsed.append(found)
        else:
            faults += found
    if faults:
        raise InvalidDocument(subject, faults, code="credentials_invalid")
    return tuple(parsed)


class _Reader:
    """Reads one mapping and gathers what is wrong with it."""

    def __init__(self, document: Any, place: str) -> None:
        self._is_mapping = isinstance(document, Mapping)
        self._document: dict[str, Any] = dict(cast("Mapping[str, Any]", document)) if self._is_mapping else {}
        self._place = place
        self._faults: list[Fault] = []

    def credential(self) -> Credential | list[Fault]:
        if not self._is_mapping:
            self._fault("", "expected a mapping with endpoint and one of bearer, header, basic and aws")
            return self._faults
        endpoint = self._endpoint()
        tls = self._document.pop("tls", True)
        if not isinstance(tls, bool):
            self._fault("tls", "expected true or false")
        how = self._how()
        for key in self._document:
            self._fault(key, "is not known here")
        if self._faults or endpoint is None or how is None:
            return self._faults
        return Credential(endpoint=str(endpoint), how=how, tls=bool(tls))

    def _fault(self, key: str, message: str) -> None:
        self._faults.append(Fault(path=f"{self._place}.{key}" if key else self._place, message=message))

    def _endpoint(self) -> Endpoint | None:
        text = self._document.pop("endpoint", None)
        try:
            endpoint = parse_endpoint(text if isinstance(text, str) else "")
        except ValueError as error:
            self._fault("endpoint", str(error))
            return None
        wide = endpoint.addresses is not None and endpoint.addresses.prefixlen != endpoint.addresses.max_prefixlen
        if endpoint.host.startswith("*") or wide or endpoint.port_low != endpoint.port_high:
            self._fault("endpoint", f"expected one host and one port, as a secret goes nowhere else, found {endpoint}")
            return None
        return endpoint

    def _how(self) -> How | None:
        kinds = [kind for kind in ("bearer", "header", "basic", "aws") if kind in self._document]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "none"
            self._fault("", f"expected exactly one of bearer, header, basic and aws, found {found}")
            for kind in (*kinds, "secret", "format"):
                self._document.pop(kind, None)
            return None
        match kinds[0]:
            case "bearer":
                secret = self._secret_name(self._document, "bearer")
                form = f"Bearer {_SLOT}"
                return HeaderCredential(header="Authorization", secret=secret, format=form) if secret else None
            case "header":
                return self._header()
            case "basic":
                return self._basic()
            case _:
                return self._aws()

    def _header(self) -> HeaderCredential | None:
        name = self._document.pop("header")
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            self._fault("header", "expected the name of a header, such as X-Api-Key")
            name = ""
        elif name.lower() in RESERVED_HEADERS:
            self._fault("header", f"{name} says how a message is framed or where it goes, and cannot be set")
        form = self._document.pop("format", _SLOT)
        if not isinstance(form, str) or form.count(_SLOT) != 1 or not form.isascii() or not form.isprintable():
            # As with names: what stands here instead may be the secret.
            self._fault("format", f"expected a text of printable ASCII with {_SLOT} in it once")
            form = _SLOT
        elif form != form.strip():
            self._fault("format", f"a header neither begins nor ends with a space, but {form!r:.80} would")
        secret = self._secret_name(self._document, "secret")
        return HeaderCredential(header=name, secret=secret, format=form) if secret else None

    def _basic(self) -> BasicCredential | None:
        entry = self._mapping("basic", ("user", "password"))
        user = entry.get("user")
        if not isinstance(user, str) or not user or ":" in user or not user.isprintable():
            self._fault("basic.user", "expected a user's name without a colon")
            return None
        password = self._secret_name(entry, "password", "basic.")
        return BasicCredential(user=user, password=password) if password else None

    def _aws(self) -> AwsCredential | None:
        entry = self._mapping("aws", ("region", "service", "access_key", "secret_key", "session_token"))
        words = {key: self._aws_word(entry, key) for key in ("region", "service")}
        access = self._secret_name(entry, "access_key", "aws.")
        secret = self._secret_name(entry, "secret_key", "aws.")
        token = self._secret_name(entry, "session_token", "aws.") if "session_token" in entry else None
        if not access or not secret:
            return None
        return AwsCredential(
            region=words["region"],
            service=words["service"],
            access_key=access,
            secret_key=secret,
            session_token=token,
        )

    def _mapping(self, key: str, known: Sequence[str]) -> dict[str, Any]:
        entry = self._document.pop(key)
        if not isinstance(entry, Mapping):
            self._fault(key, f"expected a mapping with {', '.join(known)}")
            return {}
        members = dict(cast("Mapping[str, Any]", entry))
        for other in members.keys() - set(known):
            self._fault(f"{key}.{other}", "is not known here")
        return members

    def _aws_word(self, entry: dict[str, Any], key: str) -> str:
        value = entry.get(key)
        if not isinstance(value, str) or not _AWS_WORD.fullmatch(value):
            self._fault(f"aws.{key}", f"expected a {key} such as {'us-east-1' if key == 'region' else 'ec2'}")
            return ""
        return value

    def _secret_name(self, entry: dict[str, Any], key: str, prefix: str = "") -> str | None:
        value = entry.pop(key, None)
        if not isinstance(value, str) or not _SECRET_NAME.fullmatch(value):
            # What stands here by mistake is often the secret itself, so it is not shown.
            self._fault(f"{prefix}{key}", "expected the name of a secret, such as API_TOKEN")
            return None
        return value
