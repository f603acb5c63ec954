"""docs/reference/services.md says what the code does."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from cardcage.broker import CallRate
from cardcage.contracts import service_of
from cardcage.foundation.limits import EVENTS_BURST, EVENTS_PER_S, MIB
from cardcage.services import Configuration, DataQuota, DataStore, EventBus
from cardcage.services.quota import KEY_BYTES_MAX
from cardcage_finops.pipeline.desk import ALERTS_MAX, RECOMMENDATIONS_MAX
from cardcage_finops.services import SERVICES


def table(declared: Iterable[type]) -> str:
    rows = ["| call | capability | |", "|---|---|---|"]
    for each in declared:
        interface = service_of(each)
        for name, method in interface.methods.items():
            signature = inspect.signature(getattr(each, name))
            # Annotations are text here, and so printed in quotes.
            named = [
                str(one.replace(annotation=inspect.Parameter.empty))
                .replace("=", " = ")
                .replace(one.name, f"{one.name}: {one.annotation}", 1)
                for one in list(signature.parameters.values())[1:]
            ]
            parameters = ", ".join(named).replace("''", '""')
            call = f"{interface.name}.{name}({parameters}) -> {signature.return_annotation}".replace("|", "\\|")
            capability = f"`{interface.capability}`" if interface.capability else "none"
            rows.append(f"| `{call}` | {capability} | {method.doc.splitlines()[0]} |")
    return "\n".join(rows)


TABLES = {"services": table((DataStore, EventBus, Configuration)), "finops": table(SERVICES)}


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_of_services_are_those_of_the_code(project_root: Path, name: str) -> None:
    path = project_root / "docs" / "reference" / "services.md"
    pattern = re.compile(rf"(<!-- {name}: [^\n]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)
    wanted = TABLES[name] + "\n"
    text = path.read_text()
    if os.environ.get("CARDCAGE_WRITE_DOCS"):
        text = pattern.sub(lambda match: match[1] + wanted + match[3], text)
        path.write_text(text)
    found = pattern.search(text)
    assert found is not None
    assert found[2] == wanted, "run: CARDCAGE_WRITE_DOCS=1 pytest tests/unit/services/test_reference.py"


def test_the_numbers_are_those_of_the_code(project_root: Path) -> None:
    page = " ".join((project_root / "docs" / "reference" / "services.md").read_text().split())
    quota, rate = DataQuota(), CallRate()
    for sentence in (
        f"may call {rate.per_s:g} times a second over time and {rate.burst:g} times at once",
        f"it may send {EVENTS_PER_S} a second and {EVENTS_BURST} at once",
        f"at most {KEY_BYTES_MAX} bytes",
        f"{quota.total_bytes // MIB} MiB in {quota.entries:,} entries, {quota.value_bytes // MIB} MiB in one value",
        f"At most {RECOMMENDATIONS_MAX:,} are taken in one analysis, and {ALERTS_MAX} alerts",
    ):
        assert sentence in page
