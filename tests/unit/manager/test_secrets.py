"""Where secrets come from, and what makes one unfit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cardcage.foundation.errors import InvalidDocument, Refused
from cardcage.manager.secrets import SECRET_BYTES_MAX, HostSecrets, read_secrets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "TOKEN").touch(mode=0o600)
    (tmp_path / "TOKEN").write_text("value\n")
    return tmp_path


def code(secrets: HostSecrets, name: str) -> str:
    with pytest.raises(Refused) as refused:
        secrets.secret(name)
    return refused.value.code


def test_a_file_of_that_name_is_the_secret_without_its_last_line_end(folder: Path) -> None:
    assert HostSecrets(folder=folder).secret("TOKEN") == "value"
    (folder / "TOKEN").write_text("two\nlines\n\n")
    assert HostSecrets(folder=folder).secret("TOKEN") == "two\nlines\n"


def test_a_variable_comes_before_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "from the environment")
    assert HostSecrets(environment={"TOKEN": "MINE"}, folder=folder).secret("TOKEN") == "from the environment"
    monkeypatch.delenv("MINE")
    assert code(HostSecrets(environment={"TOKEN": "MINE"}, folder=folder), "TOKEN") == "secret_missing"


def test_names_lead_nowhere_else(folder: Path) -> None:
    secrets = HostSecrets(folder=folder / "sub")
    (folder / "sub").mkdir()
    for name in ("../TOKEN", "TOKEN", "/etc/passwd", ".", "..", ""):
        assert code(secrets, name) == "secret_missing"
    (folder / "sub" / "LINK").symlink_to(folder / "TOKEN")
    assert code(secrets, "LINK") == "secret_unusable"


def test_a_file_that_others_can_read_or_that_is_none_is_refused(folder: Path) -> None:
    secrets = HostSecrets(folder=folder)
    for mode in (0o640, 0o604, 0o660):
        (folder / "TOKEN").chmod(mode)
        assert code(secrets, "TOKEN") == "secret_unsafe"
    (folder / "FOLDER").mkdir(mode=0o700)
    assert code(secrets, "FOLDER") == "secret_unusable"
    os.mkfifo(folder / "PIPE", 0o600)
    assert code(secrets, "PIPE") == "secret_unusable"


def test_a_folder_in_which_others_could_swap_secrets_is_refused(folder: Path) -> None:
    for mode in (0o770, 0o707, 0o777):
        folder.chmod(mode)
        assert code(HostSecrets(folder=folder), "TOKEN") == "secret_unsafe"
    for mode in (0o755, 0o1777):
        folder.chmod(mode)
        assert HostSecrets(folder=folder).secret("TOKEN") == "value"


def test_a_secret_that_stands_where_its_variable_should_is_not_shown() -> None:
    for word, shown in (("MY_TOKEN", True), ("ghp_Abc123", False), ("deadbeef01", False)):
        with pytest.raises(Refused) as refused:
            HostSecrets(environment={"TOKEN": word}).secret("TOKEN")
        assert (word in f"{refused.value} {refused.value.hint}") is shown


def test_size_and_encoding_are_bounded(folder: Path) -> None:
    secrets = HostSecrets(folder=folder)
    (folder / "TOKEN").write_bytes(b"x" * (SECRET_BYTES_MAX + 1))
    assert code(secrets, "TOKEN") == "secret_unusable"
    (folder / "TOKEN").write_bytes(b"\xff\xfe")
    assert code(secrets, "TOKEN") == "secret_unusable"


def test_where_no_place_is_named_nothing_is_found() -> None:
    with pytest.raises(Refused, match="names no secrets"):
        HostSecrets().secret("TOKEN")


def test_the_configuration_names_variables_and_a_folder() -> None:
    read = read_secrets({"environment": {"TOKEN": "MY_TOKEN"}, "folder": "/etc/secrets"})
    assert read == HostSecrets(environment={"TOKEN": "MY_TOKEN"}, folder=Path("/etc/secrets"))
    with pytest.raises(InvalidDocument):
        read_secrets({"environment": {"a b": "MY_TOKEN"}})
