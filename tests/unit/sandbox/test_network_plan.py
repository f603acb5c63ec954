"""Where each granted endpoint stands inside."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cardcage.permissions.network import parse_endpoint
from cardcage.sandbox.network import LISTENERS_MAX, Listener, NetworkPlan, plan_network


def listed(plan: NetworkPlan) -> list[str]:
    return [f"{listener} {listener.endpoint}" for listener in plan.listeners]


def test_nothing_granted_is_an_empty_plan() -> None:
    assert plan_network([]) == NetworkPlan()


def test_a_name_gets_one_address_for_all_its_ports() -> None:
    plan = plan_network(["api.example.com:443", "api.example.com:8000-8001", "db.example:5432"])
    assert dict(plan.hosts) == {"api.example.com": "127.100.0.2", "db.example": "127.100.0.3"}
    assert sorted(listed(plan)) == [
        "127.100.0.2:443 api.example.com:443",
        "127.100.0.2:8000 api.example.com:8000",
        "127.100.0.2:8001 api.example.com:8001",
        "127.100.0.3:5432 db.example:5432",
    ]
    assert plan.hosts_text() == "127.100.0.2 api.example.com\n127.100.0.3 db.example\n"
    assert plan.ports == (443, 5432, 8000, 8001)
    assert plan.proxy is None
    assert plan.environment() == {}


def test_an_address_is_listened_on_as_it_is() -> None:
    plan = plan_network(["127.0.0.1:80", "[::1]:80", "203.0.113.7:443"])
    assert sorted(listed(plan)) == ["127.0.0.1:80 127.0.0.1:80", "203.0.113.7:443 203.0.113.7:443", "[::1]:80 [::1]:80"]
    assert not plan.hosts


def test_localhost_is_both_loopback_addresses() -> None:
    assert sorted(listed(plan_network(["localhost:80"]))) == ["127.0.0.1:80 localhost:80", "[::1]:80 localhost:80"]
    assert not plan_network(["localhost:80"]).hosts


def test_a_name_does_not_get_an_address_that_is_granted_as_such() -> None:
    assert plan_network(["a.test:1", "127.100.0.2:1"]).hosts == {"a.test": "127.100.0.3"}


def test_patterns_ranges_and_what_is_too_wide_go_by_the_proxy() -> None:
    plan = plan_network(["*.example.com:443", "10.0.0.0/8:443", "db.test:*", "api.test:443"])
    assert plan.proxied == ("*.example.com:443", "10.0.0.0/8:443", "db.test:*")
    assert plan.proxy == Listener(address="127.100.0.1", port=3128, endpoint="")
    assert plan.environment()["https_proxy"] == "http://127.100.0.1:3128"
    assert plan.environment()["NO_PROXY"] == "localhost,127.0.0.1,::1,api.test"
    assert plan.ports == (443, 3128)


def test_a_name_above_a_proxied_one_is_left_to_the_proxy_as_well() -> None:
    """Clients take a name in NO_PROXY to mean all names beneath it too."""
    plan = plan_network(["example.com:443", "*.example.com:443", "other.test:443"])
    assert plan.environment()["no_proxy"].split(",") == ["localhost", "127.0.0.1", "::1", "other.test"]
    assert plan_network(["example.com:443", "*:443"]).environment()["no_proxy"] == "localhost,127.0.0.1,::1"


def test_addresses_that_are_no_destination_are_named_as_such() -> None:
    granted = ["0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80", "[fe80::1]:80", "[::]:80"]
    assert set(plan_network(granted).unreachable) == set(granted)
    assert not plan_network(granted).listeners


def test_an_endpoint_with_a_credential_can_be_spoken_to_in_plain_http() -> None:
    plan = plan_network(["api.test:443", "other.test:443"], injected=["api.test:443"])
    plain = [listener for listener in plan.listeners if listener.upgraded]
    assert [str(listener) for listener in plain] == [f"{plan.hosts['api.test']}:80"]
    assert plain[0].endpoint == "api.test:443"


def test_a_granted_port_80_is_not_taken_over_by_the_plain_way_to_443() -> None:
    plan = plan_network(["api.test:443", "api.test:80"], injected=["api.test:443"])
    assert [listener.endpoint for listener in plan.listeners if listener.port == 80] == ["api.test:80"]


hosts = st.sampled_from(
    ["a.test", "b.test", "localhost", "127.0.0.1", "[::1]", "10.1.2.3", "*.c.test", "10.0.0.0/8", "*"]
)
ports = st.one_of(
    st.integers(1, 65535).map(str),
    st.tuples(st.integers(1, 60000), st.integers(0, 90)).map(lambda pair: f"{pair[0]}-{sum(pair)}"),
    st.just("*"),
)


@given(st.lists(st.tuples(hosts, ports).map(":".join), max_size=12))
def test_every_grant_is_listed_or_proxied_and_no_listener_is_for_anything_else(granted: list[str]) -> None:
    plan = plan_network(granted)
    endpoints = [parse_endpoint(text) for text in granted]
    assert len(plan.listeners) <= LISTENERS_MAX
    places = [(listener.address, listener.port) for listener in plan.all_listeners]
    assert len(set(places)) == len(places)
    for listener in plan.listeners:
        assert any(endpoint.covers(parse_endpoint(listener.endpoint)) for endpoint in endpoints)
    for endpoint in endpoints:
        if str(endpoint) in plan.proxied:
            continue
        addresses = (
            ("127.0.0.1", "::1") if endpoint.host == "localhost" else (plan.hosts.get(endpoint.host, endpoint.host),)
        )
        assert all((address, endpoint.port_high) in places for address in addresses)
