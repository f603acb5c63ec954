"""Semantic version ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage.trust import range_fault, satisfies


@pytest.mark.parametrize(
    ("wanted", "inside", "outside"),
    [
        ("", "0.0.1 1.0.0 99.0.0", "2.0.0-rc.1"),
        ("*", "0.0.1 1.0.0", ""),
        ("1.2.3", "1.2.3 1.2.3+build.7", "1.2.4 1.2.2 1.2.3-rc.1"),
        ("==1.2.3", "1.2.3", "1.2.4"),
        ("=1.2.3", "1.2.3", "1.2.4"),
        (">=0.1", "0.1.0 0.1.1 3.0.0", "0.0.9 0.1.0-rc.1"),
        (">1.2", "1.3.0 2.0.0", "1.2.0 1.2.9"),
        (">1.2.0", "1.2.1", "1.2.0"),
        ("<2", "1.9.9 0.0.0", "2.0.0 2.0.0-rc.1"),
        ("<=1.2", "1.2.0 1.2.9 1.0.0", "1.3.0"),
        ("<=1.2.3", "1.2.3", "1.2.4"),
        (">=1.2, <2", "1.2.0 1.99.0", "1.1.9 2.0.0"),
        (">=1.2 <2", "1.2.0 1.99.0", "1.1.9 2.0.0"),
        (">= 1.2 , < 2", "1.2.0", "2.0.0"),
        ("!=1.2.3", "1.2.2 1.2.4", "1.2.3"),
        ("^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0 2.0.0-rc.1"),
        ("^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"),
        ("^0.0.3", "0.0.3", "0.0.4"),
        ("^1", "1.0.0 1.9.9", "2.0.0 0.9.9"),
        ("^0", "0.0.0 0.9.9", "1.0.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"),
        ("~1.2", "1.2.0 1.2.9", "1.3.0"),
        ("~1", "1.0.0 1.9.0", "2.0.0"),
        ("~=1.2.3", "1.2.3 1.2.9", "1.3.0"),
        ("~=1.2", "1.2.0 1.9.0", "2.0.0"),
        ("1.2", "1.2.0 1.2.9", "1.3.0 1.1.9"),
        ("1.2.x", "1.2.0 1.2.9", "1.3.0"),
        ("1.*", "1.0.0 1.9.9", "2.0.0"),
        ("v1.2.3", "1.2.3", "1.2.4"),
        ("1.2.3 || >=3", "1.2.3 3.0.0", "1.2.4 2.0.0"),
        (">=1.2.0-beta.2, <2", "1.2.0-beta.2 1.2.0-rc.1 1.2.0", "1.2.0-beta.1 1.3.0-beta.3"),
    ],
)
def test_a_range_holds_these_versions_and_not_those(wanted: str, inside: str, outside: str) -> None:
    assert range_fault(wanted) is None
    assert [version for version in inside.split() if not satisfies(version, wanted)] == []
    assert [version for version in outside.split() if satisfies(version, wanted)] == []


@pytest.mark.parametrize("text", ["latest", ">=", ">=1.2.3.4", "1..2", ">>1", "1.2 and 1.3", "01.2.3-", "^^1"])
def test_what_is_no_range_is_named_with_examples(text: str) -> None:
    fault = range_fault(text)
    assert fault is not None
    assert "is not a version range" in fault
    assert not satisfies("1.2.3", text)


def test_a_version_that_cannot_be_read_lies_in_no_range() -> None:
    assert not satisfies("newest", "*")


@given(st.text(max_size=40))
def test_any_text_is_a_range_or_has_a_fault(text: str) -> None:
    satisfies("1.2.3", text)
    assert range_fault(text) is None or "is not a version range" in str(range_fault(text))


numbers = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))


@given(numbers, numbers)
def test_caret_and_tilde_are_what_their_bounds_say(low: tuple[int, int, int], found: tuple[int, int, int]) -> None:
    text, version = ".".join(map(str, low)), ".".join(map(str, found))
    fixed = next((index for index, number in enumerate(low) if number), 2)
    assert satisfies(version, f"^{text}") == (found >= low and found[: fixed + 1] == low[: fixed + 1])
    assert satisfies(version, f"~{text}") == (found >= low and found[:2] == low[:2])
