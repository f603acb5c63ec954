"""How configs and arguments are read from a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cardcage import InvalidDocument, Misuse
from cardcage.cli.options import CONFIG_BYTES_MAX, read_arguments, read_config


def test_a_config_may_be_json_itself_or_a_file_of_json_or_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"n": 1}')
    (tmp_path / "a.yaml").write_text("n: 1\n")
    assert read_config('{"n": 1}') == read_config(str(tmp_path / "a.json")) == read_config(str(tmp_path / "a.yaml"))
    assert read_config(None) is None


@pytest.mark.parametrize("text", ["{broken", '{"a": 1,}'])
def test_broken_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidDocument, match="is not JSON"):
        read_config(text)


@pytest.mark.parametrize(("name", "content"), [("a.json", "[1]"), ("a.yaml", "- 1"), ("b.yaml", ""), ("c.json", "3")])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidDocument, match="expected an object"):
        read_config(str(tmp_path / name))


def test_broken_yaml_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [1\nb: }")
    with pytest.raises(InvalidDocument, match="is not YAML") as caught:
        read_config(str(tmp_path / "a.yaml"))
    assert "\n" not in caught.value.message


def test_a_config_file_that_is_missing_or_far_too_large_is_a_misuse(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="cannot be read: No such file"):
        read_config(str(tmp_path / "none.json"))
    (tmp_path / "big.json").write_bytes(b" " * (CONFIG_BYTES_MAX + 1))
    with pytest.raises(Misuse, match="is larger than 1024 KiB"):
        read_config(str(tmp_path / "big.json"))


def test_an_argument_is_json_where_it_can_be_and_else_the_text_itself() -> None:
    assert read_arguments(["1", "true", '"1"', "Ada", '{"a": [1]}', "null", "1.5.0"]) == [
        1, True, "1", "Ada", {"a": [1]}, None, "1.5.0",
    ]  # fmt: skip


def test_an_argument_that_begins_like_json_and_is_none_is_a_misuse() -> None:
    with pytest.raises(Misuse, match="begins like JSON"):
        read_arguments(["{resource: 1}"])
