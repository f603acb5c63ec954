"""From a folder to a verified release, and every fault on the way."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from cardcage.foundation.errors import InvalidDocument, Refused
from cardcage.trust import Host, confirm_digest, digest_package, verify

HOST = Host(versions={"cardcage": "0.4.2"}, system="linux", machine="x86_64")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "polite"
    folder.mkdir()
    (folder / "polite.py").write_text("raise SystemExit('the host ran me')\n")
    write(folder)
    return folder


def write(folder: Path, file: str = "plugin.yaml", **changes: Any) -> None:
    document: dict[str, Any] = {"name": "polite", "version": "1.0.0", "entrypoint": "polite:Polite", **changes}
    (folder / file).write_text(json.dumps(document))  # JSON is YAML too


def faults_of(folder: Path, code: str = "package_invalid") -> dict[str, str]:
    with pytest.raises(InvalidDocument) as raised:
        verify(folder, host=HOST)
    assert raised.value.code == code
    return {fault.path: fault.message for fault in raised.value.faults}


def test_a_sound_package_is_verified_with_its_manifest_and_digest(package: Path) -> None:
    found = verify(package, host=HOST)
    assert (found.manifest.name, found.manifest.version) == ("polite", "1.0.0")
    assert found.digest == digest_package(package)
    assert found.package_dir == package.resolve()
    assert found.manifest_file == "plugin.yaml"


def test_nothing_of_the_package_is_imported(package: Path) -> None:
    for name in ("__init__.py", "conftest.py", "setup.py", "sitecustomize.py"):
        shutil.copy(package / "polite.py", package / name)
    verify(package, host=HOST)
    assert "polite" not in sys.modules
    assert not (package / "__pycache__").exists()


@pytest.mark.parametrize("name", ["plugin.yaml", "plugin.yml", "manifest.yaml", "plugin.json"])
def test_the_manifest_may_have_any_of_four_names(package: Path, name: str) -> None:
    (package / "plugin.yaml").rename(package / name)
    assert verify(package, host=HOST).manifest_file == name


def test_two_manifests_are_refused(package: Path) -> None:
    write(package, "plugin.json")
    assert faults_of(package) == {"": "expected one manifest, found 2: plugin.yaml, plugin.json"}


def test_no_manifest_is_refused_with_what_was_expected_and_found(package: Path) -> None:
    (package / "plugin.yaml").rename(package / "plugin.yaml.txt")
    [message] = faults_of(package).values()
    assert "plugin.yaml, plugin.yml, manifest.yaml, plugin.json" in message
    assert "found plugin.yaml.txt" in message


def test_a_manifest_that_is_a_link_is_refused(package: Path) -> None:
    (package / "plugin.yaml").rename(package / "real.yaml")
    (package / "plugin.yaml").symlink_to("real.yaml")
    assert faults_of(package) == {"plugin.yaml": "the manifest must be a file, and this is a link"}


def test_a_wrong_manifest_keeps_its_own_code_and_names_the_file(package: Path) -> None:
    write(package, name="Not A Name")
    with pytest.raises(InvalidDocument) as raised:
        verify(package, host=HOST)
    assert raised.value.code == "manifest_invalid"
    assert str(package / "plugin.yaml") in str(raised.value)


def test_faults_of_the_package_and_of_the_manifest_are_told_together(package: Path) -> None:
    write(package, name="Not A Name")
    (package / "link").symlink_to("/etc/passwd")
    found = faults_of(package)
    assert "link" in found
    assert any(path.startswith("plugin.yaml: name") for path in found)


def test_an_entry_point_that_is_not_there_is_named_with_what_is_near(package: Path) -> None:
    write(package, entrypoint="polit:Polite")
    [message] = faults_of(package).values()
    assert message == "'polit:Polite' needs polit.py or polit/__init__.py in the package, which has polite"


@pytest.mark.parametrize("files", [["polit/__init__.py"], ["polit/part.py"], ["polit.py"]])
def test_an_entry_point_may_be_a_module_or_a_folder(package: Path, files: list[str]) -> None:
    write(package, entrypoint="polit:Polite")
    for name in files:
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("")
    verify(package, host=HOST)


def test_a_host_out_of_range_and_a_wrong_platform_are_both_told(package: Path) -> None:
    write(package, requires={"cardcage": ">=9"}, platforms=["windows", "macos"])
    assert faults_of(package) == {
        "requires.cardcage": "expected cardcage >=9, but cardcage 0.4.2 is running",
        "platforms": "made for windows, macos, but this machine is linux-x86_64",
    }


@pytest.mark.parametrize("platform", ["linux", "linux-x86_64", "linux/amd64", "any"])
def test_a_platform_may_be_spelled_in_several_ways(package: Path, platform: str) -> None:
    write(package, requires={"cardcage": "^0.4"}, platforms=["windows", platform])
    verify(package, host=HOST)


def test_config_schema_json_is_taken_where_the_manifest_has_none(package: Path) -> None:
    schema = {"type": "object", "properties": {"tone": {"type": "string"}}}
    (package / "config_schema.json").write_text(json.dumps(schema))
    found = verify(package, host=HOST).manifest.config_schema
    assert found is not None
    assert found["properties"] == schema["properties"]


def test_two_config_schemas_that_agree_are_one_and_two_that_differ_are_refused(package: Path) -> None:
    schema = {"type": "object", "properties": {"tone": {"type": "string"}}}
    write(package, config_schema=schema)
    (package / "config_schema.json").write_text(json.dumps(schema))
    verify(package, host=HOST)
    (package / "config_schema.json").write_text(json.dumps({"type": "object"}))
    assert "differs" in faults_of(package)["config_schema.json"]


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"type": "object", "type": "string"}', "\ufeff{}x", "[" * 100_000, " " * 300_000 + "{}"]
)
def test_a_config_schema_that_is_no_sound_object_is_refused(package: Path, text: str) -> None:
    (package / "config_schema.json").write_text(text)
    assert all(path.startswith("config_schema.json") for path in faults_of(package))


def test_bytes_that_changed_after_verification_are_refused_before_a_start(package: Path) -> None:
    digest = verify(package, host=HOST).digest.sha256
    confirm_digest(package, digest, plugin="polite", version="1.0.0")
    (package / "polite.py").write_text("import os\n")
    with pytest.raises(Refused, match=r'"polite" 1\.0\.0 was changed after it was verified') as raised:
        confirm_digest(package, digest, plugin="polite", version="1.0.0")
    assert raised.value.code == "digest_mismatch"
    shutil.rmtree(package)
    with pytest.raises(Refused, match="expected a folder"):
        confirm_digest(package, digest, plugin="polite", version="1.0.0")
