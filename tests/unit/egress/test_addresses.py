"""What kind of place an address is, and which of them a name may lead to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage.egress.addresses import PUBLIC, is_special_range, kind_of, parse_address
from cardcage.egress.rules import EgressRules
from cardcage.permissions.network import parse_endpoint


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("93.184.216.34", "public"),
        ("2606:4700::1111", "public"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("10.1.2.3", "private"),
        ("172.31.0.1", "private"),
        ("172.32.0.1", "public"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "shared (carrier-grade NAT)"),
        ("169.254.169.254", "link-local"),
        ("168.63.129.16", "cloud platform"),
        ("fd00:ec2::254", "private"),
        ("fe80::1", "link-local"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.251", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("2001:db8::1", "documentation"),
        ("4000::1", "reserved"),
        ("64:ff9b::7f00:1", "loopback in another form"),
        ("64:ff9b::5db8:d822", "public"),
        ("2002:7f00:1::", "loopback in another form"),
        ("2002:a00:1::1", "private in another form"),
        ("::10.0.0.1", "private in another form"),
    ],
)
def test_every_special_range_has_its_word(text: str, kind: str) -> None:
    assert kind_of(parse_address(text)) == kind


def test_a_mapped_address_is_the_one_that_it_maps() -> None:
    assert parse_address("::ffff:127.0.0.1") == IPv4Address("127.0.0.1")
    assert parse_address("fe80::1%eth0") == IPv6Address("fe80::1")


v4 = st.ip_addresses(v=4)


@given(v4)
def test_an_address_is_as_private_in_every_form_that_carries_it(address: IPv4Address) -> None:
    number = int(address)
    nat64 = IPv6Address(int(IPv6Address("64:ff9b::")) | number)
    six_to_four = IPv6Address(int(IPv6Address("2002::")) | number << 80 | 1)
    mapped = IPv6Address(int(IPv6Address("::ffff:0:0")) | number)
    public = kind_of(address) == PUBLIC
    assert [kind_of(form) == PUBLIC for form in (nat64, six_to_four, mapped)] == [public] * 3


@given(st.ip_addresses())
def test_no_address_that_the_standard_library_calls_private_passes_for_public(
    address: IPv4Address | IPv6Address,
) -> None:
    if kind_of(address) == PUBLIC and kind_of(parse_address(str(address))) == PUBLIC:
        assert not (address.is_private or address.is_loopback or address.is_link_local or address.is_multicast) or (
            # A mapped or translated address is judged by what it carries.
            address in ip_network("64:ff9b::/96")
            or getattr(address, "ipv4_mapped", None) is not None
            or getattr(address, "sixtofour", None) is not None
        )


@pytest.mark.parametrize(
    ("text", "special"),
    [
        ("10.0.0.0/8", True),
        ("10.2.0.0/16", True),
        ("8.0.0.0/6", False),
        ("0.0.0.0/0", False),
        ("::/0", False),
        ("fc00::/7", True),
        ("127.0.0.1/32", True),
        ("93.184.216.34/32", True),
    ],
)
def test_a_range_names_special_addresses_only_where_it_lies_within_them(text: str, special: bool) -> None:
    assert is_special_range(ip_network(text)) is special


def rules(*granted: str, **more: object) -> EgressRules:
    endpoints = tuple(map(parse_endpoint, granted))
    return EgressRules(plugin="p", instance="p", endpoints=endpoints, granted=endpoints, **more)  # type: ignore[arg-type]


def test_public_addresses_pass_and_private_ones_need_a_grant_that_names_them() -> None:
    named = rules("api.test:443")
    assert named.refuses("api.test", parse_address("93.184.216.34"), 443) is None
    assert named.refuses("api.test", parse_address("10.0.0.1"), 443) == (
        "api.test is 10.0.0.1, a private address that no grant names"
    )
    assert rules("api.test:443", "10.0.0.0/8:443").refuses("api.test", parse_address("10.0.0.1"), 443) is None
    assert rules("api.test:443", "10.0.0.0/8:80").refuses("api.test", parse_address("10.0.0.1"), 443)
    for wide in ("*:443", "0.0.0.0/0:443", "*.test:443"):
        assert rules(wide).refuses("api.test", parse_address("169.254.169.254"), 443), wide


def test_no_grant_makes_a_destination_of_an_address_that_is_none() -> None:
    for text in ("0.0.0.0", "224.0.0.1"):
        assert "no destination" in (rules(f"{text}:80").refuses(text, ip_address(text), 80) or "")


def test_a_name_of_the_operators_own_leads_where_he_said_and_nowhere_else() -> None:
    mapped = rules("api.test:443", hosts={"api.test": "127.0.0.1"})
    assert mapped.fixed_addresses("api.test") == ("127.0.0.1",)
    assert mapped.refuses("api.test", parse_address("127.0.0.1"), 443) is None
    assert mapped.refuses("api.test", parse_address("127.0.0.2"), 443) is not None


def test_a_target_is_one_host_and_port_that_a_grant_covers() -> None:
    granted = rules("*.example.com:443", "api.example.com:443", "10.0.0.0/8:80", "*:8443")
    found = granted.target("API.example.com", 443)
    assert found is not None
    assert (found.endpoint, found.grant) == ("api.example.com:443", "api.example.com:443")
    other = granted.target("www.example.com", 443)
    assert other is not None
    assert other.grant == "*.example.com:443"
    assert granted.target("10.9.9.9", 80) is not None
    for host, port in [("example.com", 443), ("*.example.com", 443), ("*", 8443), ("10.0.0.0/9", 80), ("", 8443)]:
        assert granted.target(host, port) is None, host
    for port in (0, 65536, -1):
        assert granted.target("x.test", port) is None
