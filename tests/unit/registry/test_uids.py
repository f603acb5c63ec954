"""Which user ids instances get."""

from __future__ import annotations

from cardcage.registry import DEFAULT_UID_RANGE, UidRange, choose_uid_range, parse_uid_map


def test_a_machine_that_maps_everything_uses_the_default_range() -> None:
    assert choose_uid_range(parse_uid_map("         0          0 4294967295\n")) == DEFAULT_UID_RANGE


def test_a_container_with_the_usual_64k_ids_uses_their_upper_half_below_nobody() -> None:
    mapped = parse_uid_map("         0     100000      65536\n")
    assert choose_uid_range(mapped) == UidRange(base=32_768, count=65_534 - 32_768)


def test_the_largest_of_several_ranges_is_used() -> None:
    mapped = parse_uid_map("0 1000 1\n1 100000 65536\n")
    chosen = choose_uid_range(mapped)
    assert chosen.base in mapped[1]
    assert chosen.base + chosen.count - 1 in mapped[1]


def test_a_machine_without_room_keeps_the_default_and_leaves_the_refusal_to_the_start() -> None:
    assert choose_uid_range(parse_uid_map("0 1000 1\n")) == DEFAULT_UID_RANGE
    assert choose_uid_range(()) == DEFAULT_UID_RANGE


def test_the_default_range_stays_where_no_tool_reads_a_negative_number() -> None:
    assert DEFAULT_UID_RANGE.base + DEFAULT_UID_RANGE.count <= 2**31
