"""What importing the package costs: the fork server's children inherit all of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cardcage_sdk


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "statement", ["import cardcage_sdk.serve", "from cardcage_sdk import Plugin, hook, tool, on_event, schedule"]
)
def test_no_event_loop_threads_or_logging_come_with_a_plain_plugin(statement: str) -> None:
    extra = modules_after(statement) - modules_after("pass")
    heavy = {"asyncio", "threading", "logging", "argparse", "subprocess", "traceback", "concurrent.futures"}
    assert extra & heavy == set()


def test_the_package_itself_loads_nothing_until_a_name_is_used() -> None:
    assert not {name for name in modules_after("import cardcage_sdk") if name.startswith("cardcage_sdk.")}


def test_only_the_standard_library_and_msgspec_are_imported() -> None:
    extra = modules_after(
        "import cardcage_sdk.serve, cardcage_sdk.aio, cardcage_sdk.testing, cardcage_sdk.plugins.testing"
    )
    roots = {name.partition(".")[0] for name in extra - modules_after("import msgspec")}
    assert {root for root in roots if root not in sys.stdlib_module_names} == {"cardcage_sdk"}


@pytest.mark.parametrize("name", cardcage_sdk.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(cardcage_sdk, name) is not None
    assert name in dir(cardcage_sdk)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Plugins'"):
        cardcage_sdk.Plugins  # noqa: B018  # pyright: ignore


def test_the_module_tells_its_usage() -> None:
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "cardcage_sdk.serve", "--fd", "x"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr.splitlines()[0]) == (
        2,
        "usage: python -P -m cardcage_sdk.serve --fd NUMBER",
    )
