"""Entry points, version ranges and limits, each over its whole grammar."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cardcage.foundation.errors import InvalidDocument, Misuse
from cardcage.manifest import (
    Runtime,
    parse_manifest,
    parse_version,
    range_fault,
    resolve_entry_point,
    version_matches,
)

LEAST = "name: sample\nversion: 1.0.0\nentrypoint: sample:Sample\n"


@pytest.mark.parametrize(
    ("text", "kind", "where", "attribute"),
    [
        ("collector:PrometheusCollector", "python", "collector", "PrometheusCollector"),
        ("package.module:Outer.Inner", "python", "package.module", "Outer.Inner"),
        ("optimizer.py", "python", "optimizer.py", None),
        ("src/optimizer.py:Optimizer", "python", "src/optimizer.py", "Optimizer"),
        ("./optimizer.py", "python", "optimizer.py", None),
        ("index.js", "node", "index.js", None),
        ("index.mjs#ReservationPlanner", "node", "index.mjs", "ReservationPlanner"),
        ("lib/index.js:ReservationPlanner", "node", "lib/index.js", "ReservationPlanner"),
        ("module.wasm", "wasm", "module.wasm", None),
        ("script.rn", "rune", "script.rn", None),
        ("./exporter", "executable", "exporter", None),
        ("bin/exporter-1.0", "executable", "bin/exporter-1.0", None),
        ("https://plugins.example.com:8443/v1", "service", "https://plugins.example.com:8443/v1", None),
    ],
)
def test_an_entry_point_says_what_runs_it(text: str, kind: str, where: str, attribute: str | None) -> None:
    entry = resolve_entry_point(text)
    assert entry.kind == kind
    assert [entry.module or entry.file or entry.url, entry.attribute] == [where, attribute]
    assert sum(part is not None for part in (entry.module, entry.file, entry.url)) == 1
    assert resolve_entry_point(text, entry.kind) == entry
    assert entry.raw == text


@pytest.mark.parametrize(
    ("text", "runtime", "file"),
    [
        ("server.py", Runtime.EXECUTABLE, "server.py"),
        ("server.py", Runtime.MCP, "server.py"),
        ("exporter", Runtime.EXECUTABLE, "exporter"),
        ("./server", Runtime.MCP, "server"),
    ],
)
def test_the_runtime_may_be_said_where_that_makes_sense(text: str, runtime: Runtime, file: str) -> None:
    entry = resolve_entry_point(text, runtime)
    assert (entry.kind, entry.file) == (runtime, file)


@pytest.mark.parametrize(
    ("text", "runtime", "words"),
    [
        ("sample", None, "expected module:Class, file.py"),
        ("sample:", None, "expected module:Class"),
        (":Sample", None, "expected module:Class"),
        ("sam-ple:Sample", None, "expected module:Class"),
        ("sample:1st", None, "expected module:Class"),
        ("a b.py", None, "expected module:Class"),
        ("/usr/bin/env", None, "relative to the package"),
        ("~/x.py", None, "relative to the package"),
        ("C:/x.py", None, "relative to the package"),
        ("dir\\x.py", None, "relative to the package"),
        ("../x.py", None, "stays in the package"),
        ("a/../../x.py", None, "stays in the package"),
        ("..:X", None, "stays in the package"),
        ("././x", None, "expected module:Class"),
        ("a//x.py", None, "expected module:Class"),
        ("x.wasm:run", None, "expected module:Class"),
        ("http://example.com/", None, "begins with https://"),
        ("https://user@example.com/", None, "without a user name"),
        ("https:///nowhere", None, "expected"),
        ("ftp://example.com/", None, "begins with https://"),
        ("sample:Sample", Runtime.NODE, "for the runtime node, found 'sample:Sample', which is python"),
        ("x.wasm", Runtime.EXECUTABLE, "which is wasm"),
        ("./x", Runtime.SERVICE, "which is executable"),
        ("server.py:Main", Runtime.EXECUTABLE, "a file alone"),
        ("x" * 600, None, "at most 500 characters"),
    ],
)
def test_what_is_no_entry_point_is_refused(text: str, runtime: Runtime | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        resolve_entry_point(text, runtime)


@given(st.text(alphabet="ab./:#\\~-@ \n", max_size=12))
def test_no_entry_point_ever_leaves_the_package(text: str) -> None:
    try:
        entry = resolve_entry_point(text)
    except ValueError:
        return
    assert entry.file is None or not entry.file.startswith("/")
    assert entry.file is None or not {"", ".", ".."} & set(entry.file.split("/"))


def test_an_entry_point_that_contradicts_the_runtime_is_a_fault_of_the_manifest() -> None:
    with pytest.raises(InvalidDocument, match="entrypoint: expected an entry point for the runtime rune"):
        parse_manifest(LEAST + "runtime: rune\n")


@pytest.mark.parametrize(
    ("range_text", "inside", "outside"),
    [
        (">=0.1,<2", "0.1.0 1.9.9", "0.0.9 2.0.0 2.0.0-rc.1 0.1.0-rc.1"),
        (">=0.1 <2", "0.1.0 1.9.9", "0.0.9 2.0.0"),
        (">= 0.1", "0.1.0 9.0.0", "0.0.9"),
        ("^1.2", "1.2.0 1.9.9", "1.1.9 2.0.0 2.0.0-rc.1"),
        ("^1.2.3", "1.2.3 1.3.0", "1.2.2 2.0.0"),
        ("^0.3", "0.3.0 0.3.9", "0.2.9 0.4.0"),
        ("^0.0.3", "0.0.3", "0.0.2 0.0.4 0.1.0"),
        ("^0", "0.0.0 0.9.9", "1.0.0"),
        ("~1.2", "1.2.0 1.2.9", "1.1.9 1.3.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.2.2 1.3.0"),
        ("~1", "1.0.0 1.9.0", "2.0.0"),
        ("1.x", "1.0.0 1.9.9", "0.9.9 2.0.0"),
        ("1.2.*", "1.2.0 1.2.9", "1.3.0"),
        ("1.2", "1.2.0 1.2.9", "1.3.0 1.1.0"),
        ("1.2.3", "1.2.3 1.2.3+build", "1.2.4 1.2.2 1.2.3-rc.1"),
        ("==1.2.3", "1.2.3", "1.2.4"),
        ("=1.2.3", "1.2.3", "1.2.4"),
        ("!=1.2.3", "1.2.4 1.2.2", "1.2.3"),
        (">1.2.3", "1.2.4", "1.2.3"),
        (">1.2", "1.3.0", "1.2.9"),
        ("<=1.2.3", "1.2.3", "1.2.4"),
        ("<=1.2", "1.2.9", "1.3.0"),
        ("<2", "1.9.9 0.0.1", "2.0.0 2.0.0-rc.1"),
        (">=2.0.0-rc.1", "2.0.0-rc.1 2.0.0-rc.2 2.0.0 2.1.0", "2.0.0-beta.9 2.1.0-rc.1"),
        ("2.0.0-rc.1", "2.0.0-rc.1", "2.0.0 2.0.0-rc.2"),
        ("*", "0.0.1 9.9.9", "1.0.0-rc.1"),
        ("", "0.0.1 9.9.9", "1.0.0-rc.1"),
        ("1.x || >=3", "1.0.0 3.0.0", "2.0.0"),
    ],
)
def test_a_range_holds_some_versions_and_not_others(range_text: str, inside: str, outside: str) -> None:
    assert range_fault(range_text) is None
    assert [version for version in inside.split() if not version_matches(range_text, version)] == []
    assert [version for version in outside.split() if version_matches(range_text, version)] == []


@pytest.mark.parametrize(
    "text",
    [
        "newest",
        ">>1",
        ">=",
        "1.2.3.4",
        "1..2",
        ">*",
        "!=1.2",
        "1.2-rc",
        "1 - 2",
        "=>1",
        "^^1",
        "1,,2",
        "1.2.3-01",
        "x" * 300,
    ],
)
def test_what_is_no_range_is_named(text: str) -> None:
    problem = range_fault(text)
    assert problem is not None
    assert repr(text) in problem or "at most 200 characters, found 300" in problem
    with pytest.raises(Misuse) as caught:
        version_matches(text, "1.0.0")
    assert caught.value.code == "bad_version_range"


def test_what_is_no_version_is_named() -> None:
    with pytest.raises(Misuse, match=r"expected a semantic version such as 1\.2\.3, found '1\.2'"):
        version_matches("*", "1.2")


numbers = st.tuples(*[st.integers(0, 3).map(str)] * 3).map(".".join)
versions = st.tuples(numbers, st.sampled_from(["", "", "-rc.1", "-alpha", "+build"])).map("".join)


@given(versions, versions)
def test_ranges_agree_with_the_order_of_versions(first: str, second: str) -> None:
    one, two = parse_version(first), parse_version(second)
    assert one is not None
    assert two is not None
    assume(not one.prerelease)
    assert version_matches(f">={second}", first) == (one >= two)
    assert version_matches(f"<{second}", first) == (one < two)
    assert version_matches(f">={second} || <{second}", first)
    assert not version_matches(f">{second}, <={second}", first)
    # A caret or a tilde never lets the next breaking version in.
    if version_matches(f"^{second}", first):
        assert one >= two
        assert one.major == two.major
    if version_matches(f"~{second}", first):
        assert version_matches(f">={second}", first)
        assert (one.major, one.minor) == (two.major, two.minor)


@given(st.text(alphabet="0123.x*^~<>=!|, -rcv+", max_size=14))
def test_no_text_does_worse_than_being_no_range(text: str) -> None:
    if range_fault(text) is None:
        assert version_matches(text, "1.0.0") in (True, False)


@pytest.mark.parametrize(
    ("limit", "attribute", "number"),
    [
        ("memory: 256MiB", "memory_bytes", 268_435_456),
        ("memory: 256Mi", "memory_bytes", 268_435_456),
        ("memory: 1.5 GiB", "memory_bytes", 1_610_612_736),
        ("memory: 1GB", "memory_bytes", 10**9),
        ("memory: 1048576", "memory_bytes", 1_048_576),
        ("cpu: 0.5", "cpu_cores", 0.5),
        ("cpu: 2", "cpu_cores", 2.0),
        ("cpu: 250m", "cpu_cores", 0.25),
        ("cpu: 150%", "cpu_cores", 1.5),
        ("network: 10Mbit/s", "network_bytes_per_s", 1_250_000),
        ("network: 1MiB/s", "network_bytes_per_s", 1_048_576),
        ("log_rate: 100/s", "log_lines_per_s", 100),
        ("processes: 8", "processes", 8),
    ],
)
def test_a_limit_becomes_a_number(limit: str, attribute: str, number: float) -> None:
    assert getattr(parse_manifest(f"{LEAST}limits: {{{limit}}}").limits, attribute) == number
